//! The engine as its caller's thread sees it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use coap::{Code, Delivery, Exchange, Request, Response};
use dtls::Server;

use crate::action::{Action, Listener, To};
use crate::blob::{Blob, Digest};
use crate::core::Core;
use crate::error::Error;
use crate::event::Event;
use crate::identity;
use crate::key::{MAX_LISTENERS, PeerKey, Principal};
use crate::random::Portions;
use crate::secure::{Devices, Gate};
use crate::security::Secured;
use crate::settings::{Checked, Settings};
use crate::shared::{Shared, lock};
use crate::socket;
use crate::worker::Worker;

mod secure;

type Result<T> = std::result::Result<T, Error>;

/// A peer as the caller names it.
#[derive(Clone, Debug)]
pub enum Target {
    /// A peer on plain `CoAP`.
    Plain {
        /// Its address.
        address: SocketAddr,
        /// The listener to use; None takes the first of the address family.
        listener: Option<u16>,
    },
    /// A server that we connect to securely.
    Server(SocketAddr),
    /// Whoever has an association with this identity.
    Identity {
        /// Its text.
        name: Arc<str>,
        /// Where it was last.
        address: SocketAddr,
    },
}

/// What speaks at a listener.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Our client role alone.
    Servers,
    /// Devices, and our client role.
    Devices,
}

#[derive(Default)]
struct Front {
    /// Bound addresses and what speaks there, by the number of the listener.
    listeners: Vec<(SocketAddr, Kind)>,
    /// Sockets that are bound and not served yet; later ones wait behind them, because their order is their number.
    held: Vec<Listener>,
    secured: Option<Secured>,
    blobs: HashMap<Digest, Arc<Blob>>,
}

/// One `CoAP` endpoint with its thread. All methods may be called from any thread; none waits for the network.
pub struct Engine {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    front: Mutex<Front>,
    next_handle: AtomicU64,
    closed: AtomicBool,
    checked: Checked,
    process: u32,
}

impl Engine {
    /// Checks the settings and starts the thread. `seed` determines message ids and tokens.
    ///
    /// # Errors
    /// A setting cannot be used, or the system gives no thread or descriptor.
    pub fn new(settings: &Settings, seed: u64) -> Result<Self> {
        let checked = settings.check()?;
        let system = |error: std::io::Error| Error::Invalid(format!("engine: cannot start: {error}"));
        let shared = Arc::new(Shared::new(checked.max_actions).map_err(system)?);
        let of_thread = Arc::clone(&shared);
        let of_core = checked.clone();
        let thread = thread::Builder::new()
            .name("lwm2m-engine".into())
            .spawn(move || Worker::new(Core::new(of_core, seed, &of_thread), of_thread).run())
            .map_err(system)?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
            front: Mutex::default(),
            next_handle: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            checked,
            process: process::id(),
        })
    }

    /// Readable while events wait.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.shared.events_signal.as_fd()
    }

    fn check_open(&self) -> Result<()> {
        if self.process != process::id() {
            return Err(Error::Closed(
                "the engine belongs to the process that this one was forked from",
            ));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed("the engine is closed"));
        }
        if self.shared.is_finished() {
            return Err(Error::Closed("the engine's thread has ended"));
        }
        Ok(())
    }

    /// Binds a socket and serves it.
    ///
    /// # Errors
    /// The host is not an address or name, or the system refuses.
    pub fn listen(&self, host: &str, port: u16, secure: bool) -> Result<SocketAddr> {
        let bound = self.bind(host, port, secure)?;
        self.serve()?;
        Ok(bound)
    }

    /// Binds a listener without taking datagrams from it: they wait in the system until [`Engine::serve`]. What is
    /// kept and offered in between belongs to it already.
    ///
    /// # Errors
    /// As [`Engine::listen`].
    pub fn bind(&self, host: &str, port: u16, secure: bool) -> Result<SocketAddr> {
        self.check_open()?;
        let failed = |error: std::io::Error| Error::Invalid(format!("listen: {host} port {port}: {error}"));
        let mut found = (host, port).to_socket_addrs().map_err(failed)?;
        let address = found
            .next()
            .ok_or_else(|| Error::Invalid(format!("listen: {host} has no address")))?;
        let mut front = lock(&self.front);
        let kind = if secure { Kind::Devices } else { Kind::Plain };
        if secure && front.secured.is_none() {
            return Err(unsecured());
        }
        Self::add_listener(&mut front, address, kind).map_err(failed)
    }

    /// Takes datagrams from all listeners that are bound.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn serve(&self) -> Result<()> {
        self.check_open()?;
        self.release(&mut lock(&self.front));
        Ok(())
    }

    fn release(&self, front: &mut Front) {
        for listener in front.held.drain(..) {
            self.shared.submit_or_wait(Action::Listen(Box::new(listener)));
        }
        self.shared.wake();
    }

    fn add_listener(front: &mut Front, address: SocketAddr, kind: Kind) -> std::io::Result<SocketAddr> {
        if front.listeners.len() >= usize::from(MAX_LISTENERS) {
            return Err(std::io::Error::other("too many listeners"));
        }
        let socket = socket::bind(address)?;
        let bound = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| std::io::Error::other("not an IP socket"))?;
        let gate = match (kind, &front.secured) {
            (Kind::Devices, Some(secured)) => {
                let server = Server::new(Arc::clone(&secured.server), Box::new(Portions::new()));
                Gate::Devices(Box::new(Devices::new(server, bound)))
            }
            (Kind::Plain, _) => Gate::Plain,
            (Kind::Devices | Kind::Servers, _) => Gate::Servers,
        };
        front.listeners.push((bound, kind));
        front.held.push(Listener {
            socket,
            gate,
            restored: Vec::new(),
        });
        Ok(bound)
    }

    fn to(&self, target: Target) -> Result<To> {
        Ok(match target {
            Target::Plain {
                address,
                listener: Some(listener),
            } => To::Key(PeerKey::new(listener, address)),
            Target::Plain { address, .. } => {
                To::Key(PeerKey::new(self.listener(address, Kind::Plain)?, address))
            }
            Target::Server(address) => {
                To::Key(PeerKey::server(self.listener(address, Kind::Servers)?, address))
            }
            Target::Identity { name, address } => To::Identity {
                hash: identity::hash(&name),
                name,
                address,
            },
        })
    }

    /// The listener to send by to an address; one is bound to any port where there is none.
    fn listener(&self, address: SocketAddr, kind: Kind) -> Result<u16> {
        let mut front = lock(&self.front);
        if kind == Kind::Servers && front.secured.is_none() {
            return Err(unsecured());
        }
        let (ipv6, plain) = (address.is_ipv6(), kind == Kind::Plain);
        let position = |front: &Front| {
            let mut listeners = front.listeners.iter();
            listeners.position(|(bound, kind)| bound.is_ipv6() == ipv6 && (*kind == Kind::Plain) == plain)
        };
        if position(&front).is_none() {
            let any: IpAddr = if ipv6 {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            };
            let alone = front.held.is_empty();
            Self::add_listener(&mut front, SocketAddr::new(any, 0), kind)
                .map_err(|error| Error::Invalid(format!("peer: no socket for {address}: {error}")))?;
            if alone {
                self.release(&mut front);
            }
        }
        let listener = position(&front).and_then(|index| u16::try_from(index).ok());
        Ok(listener.unwrap_or(u16::MAX))
    }

    /// Takes up to `limit` events, and hands waiting actions over.
    ///
    /// # Errors
    /// The engine is closed or its thread has ended, and all events were taken.
    pub fn drain(&self, limit: usize) -> Result<Vec<Event>> {
        let events = self.shared.drain(limit);
        if events.is_empty() {
            self.check_open()?;
        }
        self.flush();
        Ok(events)
    }

    /// Hands waiting actions over.
    pub fn flush(&self) {
        if self.shared.holding_back.load(Ordering::Relaxed) || self.shared.actions_waiting() > 0 {
            self.shared.wake();
        }
    }

    fn start(&self, action: impl FnOnce(u64) -> Action) -> Result<u64> {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.shared.submit(action(handle)).map_err(|_| Error::QueueFull)?;
        Ok(handle)
    }

    /// Sends a request; the handle ends with a response or a failure.
    ///
    /// # Errors
    /// Too many actions wait, or the engine is closed.
    pub fn request(&self, target: Target, request: Request, delivery: Delivery) -> Result<u64> {
        self.check_open()?;
        let to = self.to(target)?;
        self.start(|handle| Action::Request {
            handle,
            to,
            request: Box::new(request),
            delivery,
        })
    }

    /// Pushes a blob by Block1 from `offset` bytes on.
    ///
    /// # Errors
    /// No blob has this digest, the offset lies behind its end, too many actions wait, or the engine is closed.
    pub fn push(
        &self,
        target: Target,
        code: Code,
        path: Vec<String>,
        digest: &Digest,
        (offset, block_size): (u64, u16),
        content_format: Option<u16>,
    ) -> Result<u64> {
        self.check_open()?;
        let blob = self.blob(digest)?;
        if offset > 0 && offset >= blob.size() {
            let size = blob.size();
            return Err(Error::Invalid(format!(
                "offset: {offset} lies behind the {size} bytes of the blob"
            )));
        }
        let to = self.to(target)?;
        let push = coap::Push {
            code,
            path,
            query: Vec::new(),
            content_format,
            source: blob,
            offset,
            block_size,
        };
        self.start(|handle| Action::Push {
            handle,
            to,
            push: Box::new(push),
        })
    }

    /// Ends a request, a push or an observation; unknown handles are ignored.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn cancel(&self, handle: u64) -> Result<()> {
        self.submit(Action::Cancel { handle })
    }

    fn submit(&self, action: Action) -> Result<()> {
        self.check_open()?;
        self.shared.submit_or_wait(action);
        Ok(())
    }

    /// Answers a request; one that has ended meanwhile is ignored.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn respond(&self, exchange: u64, response: Response) -> Result<()> {
        self.submit(Action::Respond {
            exchange: Exchange(exchange),
            response: Box::new(response),
        })
    }

    /// Notifies an observer; one that has gone meanwhile is ignored.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn notify(&self, exchange: u64, response: Response, confirmable: bool) -> Result<()> {
        let (exchange, response) = (Exchange(exchange), Box::new(response));
        self.submit(Action::Notify {
            exchange,
            response,
            confirmable,
        })
    }

    /// Hands the Block1 blocks of this path over one by one.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn stream(&self, path: Vec<String>) -> Result<()> {
        self.submit(Action::Stream { path })
    }

    /// Maps a file under its digest; returns its size in bytes.
    ///
    /// # Errors
    /// The file is missing or not a regular one.
    pub fn add_blob(&self, digest: Digest, file: &Path) -> Result<u64> {
        self.check_open()?;
        let blob = Blob::open(digest, file)
            .map_err(|error| Error::Invalid(format!("file: {}: {error}", file.display())))?;
        let size = blob.size();
        lock(&self.front).blobs.insert(digest, Arc::new(blob));
        Ok(size)
    }

    fn blob(&self, digest: &Digest) -> Result<Arc<Blob>> {
        let blob = lock(&self.front).blobs.get(digest).cloned();
        blob.ok_or_else(|| Error::Invalid("digest: no blob was added under it".into()))
    }

    /// Forgets a blob; transfers under way keep it until they end.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn remove_blob(&self, digest: Digest) -> Result<()> {
        lock(&self.front).blobs.remove(&digest);
        self.submit(Action::RemoveBlob { digest })
    }

    /// Lets the identity of a peer, or without one its host, GET a blob under this path; offers are counted.
    ///
    /// # Errors
    /// No blob has this digest, or the engine is closed.
    pub fn offer(&self, path: Vec<String>, digest: &Digest, target: &Target) -> Result<()> {
        let blob = self.blob(digest)?;
        let owner = owner(target);
        self.submit(Action::Offer { path, blob, owner })
    }

    /// Takes one offer back.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn withdraw(&self, path: Vec<String>, target: &Target) -> Result<()> {
        let owner = owner(target);
        self.submit(Action::Withdraw { path, owner })
    }

    /// Answers bare Updates of /rd/`location` from this peer.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn keep(&self, location: String, target: Target) -> Result<()> {
        self.check_open()?;
        let owner = self.owner(target)?;
        self.submit(Action::Keep { location, owner })
    }

    /// The same for many registrations, as a start finds them.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn keep_all(&self, registrations: impl IntoIterator<Item = (String, Target)>) -> Result<()> {
        self.check_open()?;
        let kept = registrations
            .into_iter()
            .map(|(location, target)| Ok((location, self.owner(target)?)))
            .collect::<Result<_>>()?;
        self.submit(Action::KeepAll(kept))
    }

    fn owner(&self, target: Target) -> Result<Principal> {
        Ok(match self.to(target)? {
            To::Key(key) => key.principal(),
            To::Identity { hash, .. } => Principal::of_identity(hash),
        })
    }

    /// Leaves Updates of this location to Python again.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn forget(&self, location: String) -> Result<()> {
        self.submit(Action::Drop { location })
    }

    /// Ends all that is under way with a peer: requests, pushes and observations fail as peer-gone.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn forget_peer(&self, target: Target) -> Result<()> {
        self.check_open()?;
        let to = self.to(target)?;
        self.submit(Action::ForgetPeer { to })
    }

    /// Counters, table sizes and queue depths by name.
    pub fn statistics(&self) -> Vec<(&'static str, u64)> {
        let mut statistics = lock(&self.shared.statistics).clone();
        statistics.extend([
            ("requests_sent", self.next_handle.load(Ordering::Relaxed) - 1),
            ("events_waiting", self.shared.events_waiting() as u64),
            (
                "requests_waiting",
                self.shared.depths.requests.load(Ordering::Relaxed) as u64,
            ),
            ("actions_waiting", self.shared.actions_waiting() as u64),
            ("blobs", lock(&self.front).blobs.len() as u64),
        ]);
        statistics
    }

    /// Stops the thread and waits for its end. Calling it again does nothing.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let thread = lock(&self.thread).take();
        if self.process != process::id() {
            // The thread did not come along when the process forked, and the descriptors are shared with the parent.
            std::mem::forget(thread);
            return;
        }
        if let Some(thread) = thread {
            self.shared.stop();
            // A panic of the thread was counted and printed when it happened; here only its end matters.
            let _ = thread.join();
        }
    }
}

fn unsecured() -> Error {
    Error::Invalid("secure: call it before the first secure listener or request".into())
}

/// Who owns what is offered to a target.
fn owner(target: &Target) -> Principal {
    match target {
        Target::Plain { address, .. } => PeerKey::new(0, *address).owner(),
        Target::Server(address) => PeerKey::server(0, *address).owner(),
        Target::Identity { name, .. } => Principal::of_identity(identity::hash(name)),
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}
