//! Work that may wait for a file system, and for ever where that is a network's that does not answer: aside from the one
//! thread that runs all checks, and from the one that delivers all alerts.
//!
//! Each piece of work has a thread of its own while it is under way, and whoever wants the same thing meanwhile waits for that
//! one. So a file that hangs is one thread, however many want it and however long it hangs, and holds up only those that want
//! it. Where as many files hang as there are places, who wants yet another one is told that there is none.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;

use crate::config::limits::FILES_AT_ONCE;

/// How long a place is waited for: files that do not hang leave theirs within moments.
const PATIENCE: Duration = Duration::from_millis(250);

/// What is under way, by what it is about.
pub(super) struct Aside<K: Ord + 'static, T: 'static> {
    under_way: Mutex<BTreeMap<K, watch::Receiver<Option<T>>>>,
    places: &'static Semaphore,
}

/// There is no place.
#[derive(Debug, thiserror::Error)]
#[error(
    "as many files as may be ({}) are waited for already; does their file system answer?",
    FILES_AT_ONCE
)]
struct Full(#[source] io::Error);

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
    pub(super) const fn new(places: &'static Semaphore) -> Self {
        Self {
            under_way: Mutex::new(BTreeMap::new()),
            places,
        }
    }

    /// Has work done, or waits for that which is under way.
    ///
    /// # Errors
    /// The system gives no thread for it, or all places are taken.
    pub(super) async fn get(
        &'static self,
        key: &K,
        work: impl FnOnce(&K) -> T + Send + 'static,
    ) -> io::Result<T> {
        let under_way = self.lock().get(key).cloned();
        let mut answer = match under_way {
            Some(answer) => answer,
            None => self.begin(key, self.place().await?, work)?,
        };
        let done = answer.wait_for(Option::is_some).await;
        let done = done.ok().and_then(|done| done.clone());
        done.ok_or_else(|| io::Error::other("its thread broke, which is a mistake in this program"))
    }

    async fn place(&self) -> io::Result<SemaphorePermit<'static>> {
        match timeout(PATIENCE, self.places.acquire()).await {
            Ok(place) => place.map_err(io::Error::other),
            // As where the system gives no thread: it says nothing of a backend.
            Err(_) => Err(io::Error::other(Full(Errno::EAGAIN.into()))),
        }
    }

    fn begin(
        &'static self,
        key: &K,
        place: SemaphorePermit<'static>,
        work: impl FnOnce(&K) -> T + Send + 'static,
    ) -> io::Result<watch::Receiver<Option<T>>> {
        // Until it is entered, so that the thread cannot take it out before.
        let mut under_way = self.lock();
        // Of somebody who got a place meanwhile.
        if let Some(answer) = under_way.get(key) {
            return Ok(answer.clone());
        }
        let (tell, answer) = watch::channel(None);
        let own = key.clone();
        thread::Builder::new()
            .name("file".to_owned())
            .spawn(move || {
                let this = UnderWay {
                    all: self,
                    key: own,
                };
                let done = work(&this.key);
                // Whoever asks from now on wants to know what is so now.
                drop(this);
                drop(place);
                tell.send_replace(Some(done));
            })?;
        under_way.insert(key.clone(), answer.clone());
        Ok(answer)
    }
}

impl<K: Ord + 'static, T: 'static> Aside<K, T> {
    /// Waits until nothing is under way that was when this was called.
    pub(super) async fn settle(&self) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        for mut one in all {
            // An error: it broke, and is over too.
            drop(one.wait_for(Option::is_some).await);
        }
    }

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
    use crate::health::probe::FailureKind;

    static PLACES: Semaphore = Semaphore::const_new(FILES_AT_ONCE);
    static ASIDE: Aside<&str, usize> = Aside::new(&PLACES);
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
        static BREAKS: Aside<u8, u8> = Aside::new(&PLACES);
        let broken = BREAKS.get(&1, |_| panic!("as the test wants it")).await;
        assert!(broken.unwrap_err().to_string().contains("broke"));
        assert_eq!(BREAKS.get(&1, |_| 2).await.unwrap(), 2);
    }

    /// However many files hang, there are no more threads than places: whoever wants yet another one learns that this machine
    /// lacks something, and not that a backend does. Who wants one that hangs waits for it, and takes no place.
    #[tokio::test]
    async fn files_that_hang_take_no_more_threads_than_there_are_places() {
        static TWO: Semaphore = Semaphore::const_new(2);
        static FILES: Aside<u8, u8> = Aside::new(&TWO);
        let (release, hangs) = channel::<()>();
        let hangs = std::sync::Arc::new(Mutex::new(hangs));
        let hang = |file: u8| {
            let hangs = std::sync::Arc::clone(&hangs);
            tokio::spawn(async move {
                let work = move |file: &u8| {
                    let _ = hangs.lock().unwrap().recv();
                    *file
                };
                FILES.get(&file, work).await
            })
        };
        let hanging = [hang(1), hang(2), hang(1)];
        while FILES.lock().len() < 2 {
            tokio::task::yield_now().await;
        }
        let error = hang(3).await.unwrap().unwrap_err();
        assert_eq!(FailureKind::of_beginning(&error), FailureKind::Shortage);
        assert!(error.to_string().contains("file system"), "{error}");
        assert_eq!(FILES.lock().len(), 2);
        drop(release);
        for (one, file) in hanging.into_iter().zip([1, 2, 1]) {
            assert_eq!(one.await.unwrap().unwrap(), file);
        }
        assert_eq!(FILES.get(&3, |file| *file).await.unwrap(), 3);
        FILES.settle().await;
    }
}
