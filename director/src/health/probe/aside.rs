//! Work that may wait for a file system, and for ever where that is a network's that does not answer: aside from the one
//! thread that runs all checks.
//!
//! Each piece of work has a thread of its own while it is under way, and whoever wants the same thing meanwhile waits for that
//! one. So there are never more threads than there are files in the configuration, however many checks want them and however
//! long they hang, and a file that hangs holds up only those that want it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::watch;

/// What is under way, by what it is about.
pub(super) struct Aside<K: Ord + 'static, T: 'static> {
    under_way: Mutex<BTreeMap<K, watch::Receiver<Option<T>>>>,
}

/// Takes a piece of work out of those under way when it ends, however it does.
struct UnderWay<K: Ord + 'static, T: 'static> {
    all: &'static Aside<K, T>,
    key: K,
}

impl<K: Ord + 'static, T: 'static> Drop for UnderWay<K, T> {
    fn drop(&mut self) {
        self.all.lock().remove(&self.key);
    }
}

impl<K, T> Aside<K, T>
where
    K: Ord + Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Nothing is under way.
    pub(super) const fn new() -> Self {
        Self {
            under_way: Mutex::new(BTreeMap::new()),
        }
    }

    /// Has work done, or waits for that which is under way.
    ///
    /// # Errors
    /// The system gives no thread for it.
    pub(super) async fn get(
        &'static self,
        key: &K,
        work: impl FnOnce(&K) -> T + Send + 'static,
    ) -> io::Result<T> {
        let mut answer = self.begin(key, work)?;
        let done = answer.wait_for(Option::is_some).await;
        let done = done.ok().and_then(|done| done.clone());
        done.ok_or_else(|| io::Error::other("its thread broke, which is a mistake in this program"))
    }

    fn begin(
        &'static self,
        key: &K,
        work: impl FnOnce(&K) -> T + Send + 'static,
    ) -> io::Result<watch::Receiver<Option<T>>> {
        // Until it is entered, so that the thread cannot take it out before.
        let mut under_way = self.lock();
        if let Some(answer) = under_way.get(key) {
            return Ok(answer.clone());
        }
        let (tell, answer) = watch::channel(None);
        let own = key.clone();
        thread::Builder::new()
            .name("checks-file".to_owned())
            .spawn(move || {
                let this = UnderWay {
                    all: self,
                    key: own,
                };
                let done = work(&this.key);
                // Whoever asks from now on wants to know what is so now.
                drop(this);
                tell.send_replace(Some(done));
            })?;
        under_way.insert(key.clone(), answer.clone());
        Ok(answer)
    }
}

impl<K: Ord + 'static, T: 'static> Aside<K, T> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, watch::Receiver<Option<T>>>> {
        // Nothing is left half done by whoever panics.
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    static ASIDE: Aside<&str, usize> = Aside::new();
    static ASKED: AtomicUsize = AtomicUsize::new(0);

    /// However many want what hangs, it is one thread; others are not held up, and whoever asks after its end asks anew.
    #[tokio::test]
    async fn what_hangs_is_one_thread_and_holds_up_nobody_else() {
        let (release, hangs) = channel::<()>();
        let hanging = tokio::spawn(ASIDE.get(&"hangs", move |_| {
            let _ = hangs.recv();
            1
        }));
        while ASIDE.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..100)
            .map(|_| {
                tokio::spawn(async {
                    ASKED.fetch_add(1, Ordering::SeqCst);
                    ASIDE
                        .get(&"hangs", |_| unreachable!("it is under way"))
                        .await
                })
            })
            .collect();
        while ASKED.load(Ordering::SeqCst) < 100 {
            tokio::task::yield_now().await;
        }
        for number in 0..10 {
            assert_eq!(ASIDE.get(&"other", move |_| number).await.unwrap(), number);
        }
        assert_eq!(ASIDE.lock().len(), 1);
        drop(release);
        assert_eq!(hanging.await.unwrap().unwrap(), 1);
        for other in others {
            assert_eq!(other.await.unwrap().unwrap(), 1);
        }
        assert_eq!(ASIDE.get(&"hangs", |_| 7).await.unwrap(), 7);
    }

    /// One that breaks says so, and the next one is not held up by it.
    #[tokio::test]
    async fn what_breaks_is_told() {
        static BREAKS: Aside<u8, u8> = Aside::new();
        let broken = BREAKS.get(&1, |_| panic!("as the test wants it")).await;
        assert!(broken.unwrap_err().to_string().contains("broke"));
        assert_eq!(BREAKS.get(&1, |_| 2).await.unwrap(), 2);
    }
}
