//! The thread that carries packets of checks between their namespace and the real servers.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;
use xdp_ebpf::layout::Destination;

use super::Transport;
use super::guard::{Guard, PORTS};
use super::namespace::{HEADER_BYTES, Tun};
use super::packet::{Ends, Path, ends, quoted};
use super::wire::{LARGEST, Wire};

/// Packets of one direction that are carried before the other one has its turn.
const AT_ONCE: usize = 64;

enum Order {
    Open {
        ends: Ends,
        destination: Box<Destination>,
        guard: Guard,
        reply: oneshot::Sender<io::Result<Socket>>,
    },
    End(Ends),
}

/// Orders, and what wakes the thread up for them.
#[derive(Debug)]
struct Orders {
    orders: Sender<Order>,
    bell: UnixStream,
}

impl Orders {
    fn give(&self, order: Order) -> io::Result<()> {
        let gone = || io::Error::other("the thread that carries checks has ended");
        self.orders.send(order).map_err(|_| gone())?;
        match (&self.bell).write(&[1]) {
            // So many others have rung that the thread will look.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            rung => rung.map(drop),
        }
    }
}

/// The thread, as checks see it. It ends when nobody does.
#[derive(Clone, Debug)]
pub struct Carrier {
    orders: Arc<Orders>,
    last_port: Arc<AtomicU16>,
    thread: Arc<JoinHandle<()>>,
}

/// A check's packets are carried as long as this is there.
#[derive(Debug)]
pub struct Flow {
    ends: Ends,
    orders: Arc<Orders>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        // It fails only when the thread has ended, and every flow with it.
        drop(self.orders.give(Order::End(self.ends)));
    }
}

impl Carrier {
    /// Starts the thread, in a namespace of its own.
    ///
    /// # Errors
    /// When the system refuses the namespace, its device, or the packet sockets.
    pub fn start() -> io::Result<Self> {
        let (orders, taken) = channel();
        let (bell, heard) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        let (told, result) = channel();
        let thread = thread::Builder::new()
            .name("checks-through".to_owned())
            .spawn(move || {
                // The packet sockets are the node's own; the rest belongs to the namespace.
                let made = Wire::open().and_then(|wire| Ok((wire, Tun::in_new_namespace()?)));
                let (wire, tun) = match made {
                    Ok(made) => {
                        drop(told.send(Ok(())));
                        made
                    }
                    Err(error) => {
                        drop(told.send(Err(error)));
                        return;
                    }
                };
                let mut work = Work {
                    wire,
                    tun,
                    path: Path::new(),
                    flows: HashMap::new(),
                    addresses: HashSet::new(),
                    buffer: vec![0; LARGEST],
                };
                if let Err(error) = work.run(&taken, &heard) {
                    tracing::error!("checks cannot go through the real path any more: {error}");
                }
            })?;
        result
            .recv()
            .map_err(|_| io::Error::other("its thread broke"))??;
        Ok(Self {
            orders: Arc::new(Orders { orders, bell }),
            last_port: Arc::new(AtomicU16::new(*PORTS.end())),
            thread: Arc::new(thread),
        })
    }

    /// Whether the thread is there.
    pub(in crate::health) fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// A socket in the namespace, bound to one of the node's addresses; what it sends to this service's end goes to this
    /// real server. It is to be dropped before the flow, so that its last words are carried.
    pub(super) async fn open(
        &self,
        transport: Transport,
        source: IpAddr,
        to: SocketAddr,
        destination: Destination,
    ) -> io::Result<(Socket, Flow)> {
        // On this thread, which is in the node's namespace.
        let guard = Guard::after(self.last_port.load(Ordering::Relaxed), transport, source)?;
        self.last_port.store(guard.port, Ordering::Relaxed);
        let ends = Ends {
            transport,
            from: SocketAddr::new(source, guard.port),
            to,
        };
        let (reply, answer) = oneshot::channel();
        self.orders.give(Order::Open {
            ends,
            destination: Box::new(destination),
            guard,
            reply,
        })?;
        let flow = Flow {
            ends,
            orders: Arc::clone(&self.orders),
        };
        let socket = answer
            .await
            .map_err(|_| io::Error::other("the thread that carries checks has ended"))??;
        Ok((socket, flow))
    }
}

/// The thread's own.
struct Work {
    wire: Wire,
    tun: Tun,
    path: Path,
    /// By their ends, as the check sees them.
    flows: HashMap<Ends, (Box<Destination>, Guard)>,
    /// Addresses that the namespace has.
    addresses: HashSet<IpAddr>,
    buffer: Vec<u8>,
}

impl Work {
    fn run(&mut self, orders: &Receiver<Order>, mut heard: &UnixStream) -> io::Result<()> {
        loop {
            {
                let [one, two] = self.wire.descriptors();
                let waiting = [heard.as_fd(), self.tun.descriptor(), one, two];
                let mut waiting = waiting.map(|it| PollFd::new(it, PollFlags::POLLIN));
                match poll(&mut waiting, PollTimeout::NONE) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // Before the orders are looked for, so that none is missed.
            let mut rings = [0; 64];
            while matches!(heard.read(&mut rings), Ok(1..)) {}
            loop {
                match orders.try_recv() {
                    Ok(Order::Open {
                        ends,
                        destination,
                        guard,
                        reply,
                    }) => {
                        let socket = self.socket(ends);
                        if socket.is_ok() {
                            self.flows.insert(ends, (destination, guard));
                        }
                        // Whoever asked may have given up; then the end comes next.
                        drop(reply.send(socket));
                    }
                    Ok(Order::End(ends)) => {
                        // Its socket was closed before: what that sent is in the device by now.
                        while self.carry_out()? == AT_ONCE {}
                        self.flows.remove(&ends);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.carry_out()?;
            self.carry_in()?;
        }
    }

    /// A check's socket.
    fn socket(&mut self, ends: Ends) -> io::Result<Socket> {
        if !self.addresses.contains(&ends.from.ip()) {
            self.tun.add_address(ends.from.ip())?;
            self.addresses.insert(ends.from.ip());
        }
        let kind = match ends.transport {
            Transport::Tcp => Type::STREAM,
            Transport::Udp => Type::DGRAM,
        };
        let socket = Socket::new(Domain::for_address(ends.from), kind, None)?;
        socket.set_nonblocking(true)?;
        if ends.from.is_ipv4() {
            socket.set_ttl_v4(1)?;
        } else {
            socket.set_unicast_hops_v6(1)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&ends.from.into())?;
        Ok(socket)
    }

    /// Checks' packets to their real servers. How many there were.
    fn carry_out(&mut self) -> io::Result<usize> {
        for count in 0..AT_ONCE {
            let Some(packet) = self.tun.next(&mut self.buffer)? else {
                return Ok(count);
            };
            let Some((destination, _)) = ends(packet).and_then(|ends| self.flows.get(&ends)) else {
                // The namespace's own, like a router solicitation.
                continue;
            };
            if let Some((ifindex, frame)) = self.path.deliver(packet, destination)
                && let Err(error) = self.wire.send(ifindex, &frame)
            {
                // As good as lost on the way: the check will say so.
                tracing::debug!(%error, "a packet of a check is lost");
            }
        }
        Ok(AT_ONCE)
    }

    /// Answers to checks.
    fn carry_in(&mut self) -> io::Result<()> {
        for family in 0..2 {
            for _ in 0..AT_ONCE {
                let Some(answer) = self.wire.next(family, &mut self.buffer)? else {
                    break;
                };
                let packet = answer.get(HEADER_BYTES..).unwrap_or_default();
                let ends = ends(packet).map(Ends::turned).or_else(|| quoted(packet));
                if ends.is_some_and(|ends| self.flows.contains_key(&ends))
                    && let Err(error) = self.tun.let_in(answer)
                {
                    tracing::debug!(%error, "an answer to a check is lost");
                }
            }
        }
        Ok(())
    }
}
