//! The engine's thread: waits on its sockets, drives the core, sends.
//!
//! `inbound` and `outbound` are the only places where datagrams pass between sockets and `CoAP`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coap::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockAddr, Socket};

use crate::action::Action;
use crate::core::Core;
use crate::key::Route;
use crate::secure::Outgoing;
use crate::shared::{Shared, lock};
use crate::socket::{Inbox, Outbox, Sent, dropped};

/// Batches read from one socket before the others, the actions and the timers get their turn.
const BATCHES_A_TURN: usize = 4;
/// The kernel is not asked more often what it dropped.
const LOOK_GAP: Duration = Duration::from_secs(1);
/// Room for actions that is kept between turns.
const KEEP_ACTIONS: usize = 1024;
/// Times that what DTLS says to what is sent may lead to more that is to be sent, in one turn.
const ROUNDS: usize = 4;

#[derive(Default)]
struct Traffic {
    received: u64,
    received_bytes: u64,
    unusable: u64,
    sent: u64,
    sent_bytes: u64,
    lost: u64,
    /// By the kernel, before we read them.
    dropped: u64,
    errors: u64,
}

impl Traffic {
    fn add(&mut self, sent: Sent) {
        self.sent += sent.datagrams;
        self.sent_bytes += sent.bytes;
        self.lost += sent.lost;
    }
}

/// State of the thread.
pub struct Worker {
    core: Core,
    shared: Arc<Shared>,
    sockets: Vec<Socket>,
    inbox: Inbox,
    /// Memory for addresses to send to.
    names: Vec<SockAddr>,
    /// Empty between turns.
    actions: Vec<Action>,
    traffic: Traffic,
    /// When to ask the kernel again.
    look: Instant,
}

/// Marks the engine as ended however the thread ends, so that nobody waits for it.
struct Finish(Arc<Shared>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl Worker {
    pub fn new(core: Core, shared: Arc<Shared>) -> Self {
        Self {
            core,
            shared,
            sockets: Vec::new(),
            inbox: Inbox::new(),
            names: Vec::new(),
            actions: Vec::new(),
            traffic: Traffic::default(),
            look: Instant::from_micros(0),
        }
    }

    /// Runs until it is told to stop; the last actions are still carried out, the last events reported.
    pub fn run(mut self) {
        let _finish = Finish(Arc::clone(&self.shared));
        let mut ready = Vec::new();
        while !self.shared.is_stopping() {
            self.wait(&mut ready);
            let now = self.now();
            for &listener in &ready {
                self.inbound(listener, now);
            }
            self.turn(now);
        }
        let now = self.now();
        self.core.last_report();
        self.core.suspend();
        self.turn(now);
    }

    fn now(&mut self) -> Instant {
        let now = self.shared.now();
        self.core.site.epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        self.core.site.seconds = u32::try_from(now.as_micros() / 1_000_000).unwrap_or(u32::MAX);
        now
    }

    /// Sleeps until a socket is readable, Python calls, or a timer is due; says which sockets are readable.
    fn wait(&mut self, ready: &mut Vec<u16>) {
        let now = self.shared.now();
        let patience = self
            .core
            .next_timeout()
            .map(|due| due.since(now).min(Duration::from_secs(3600)));
        let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut fds = Vec::with_capacity(self.sockets.len() + 1);
        let wake_fd = self.shared.wake_fd();
        fds.push(PollFd::from_borrowed_fd(wake_fd, PollFlags::IN));
        fds.extend(
            self.sockets
                .iter()
                .map(|socket| PollFd::new(socket, PollFlags::IN)),
        );
        ready.clear();
        if poll(&mut fds, timeout.as_ref()).is_err() {
            // A signal came; the next turn asks again.
            return;
        }
        let mut results = fds.iter().map(|fd| !fd.revents().is_empty());
        let woken = results.next().unwrap_or(false);
        ready.extend(
            (0..)
                .zip(results)
                .filter_map(|(listener, readable)| readable.then_some(listener)),
        );
        if woken {
            self.shared.woken();
        }
    }

    /// Takes the datagrams of one socket into the core.
    fn inbound(&mut self, listener: u16, now: Instant) {
        for _ in 0..BATCHES_A_TURN {
            let Some(socket) = self.sockets.get(usize::from(listener)) else {
                return;
            };
            let Ok((count, more)) = self.inbox.receive(socket) else {
                self.traffic.errors += 1;
                return;
            };
            // What Python said before a datagram was sent to us holds for that datagram.
            self.actions(now);
            let mut usable = 0;
            for (address, datagram) in self.inbox.datagrams() {
                usable += 1;
                self.traffic.received_bytes += datagram.len() as u64;
                self.core.inbound(listener, address, datagram, now);
            }
            self.traffic.received += count as u64;
            self.traffic.unusable += (count as u64).saturating_sub(usable);
            if !more {
                return;
            }
        }
    }

    /// Carries out what Python asks.
    fn actions(&mut self, now: Instant) {
        let mut actions = std::mem::take(&mut self.actions);
        self.shared.take_actions(&mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Listen(listener) => {
                    self.sockets.push(listener.socket);
                    self.core.open(listener.gate, &listener.restored);
                }
                action => self.core.act(action, now),
            }
        }
        actions.shrink_to(KEEP_ACTIONS);
        self.actions = actions;
    }

    /// Carries out Python's actions, the timers, and everything that is to go out.
    fn turn(&mut self, now: Instant) {
        self.actions(now);
        self.core.timeout(now);
        self.outbound(now);
        if now >= self.look {
            self.look = now + LOOK_GAP;
            self.traffic.dropped = self.sockets.iter().map(|socket| u64::from(dropped(socket))).sum();
        }
        self.report();
    }

    /// Sends what the core has ready.
    fn outbound(&mut self, now: Instant) {
        for _ in 0..ROUNDS {
            let count = self.stack_outbound(now);
            if count == 0 {
                break;
            }
            self.core.stack.sent(count);
            self.core.sent(now);
        }
        let (sockets, traffic, names) = (&self.sockets, &mut self.traffic, &mut self.names);
        self.core.secure.transmit(|listener, outgoing| {
            let (count, sent) = match outgoing {
                Outgoing::Devices(server) => send_all(sockets, names, listener, server.transmits()),
                Outgoing::Server(client) => send_all(sockets, names, listener, client.transmits()),
            };
            traffic.add(sent);
            count
        });
    }

    /// Sends the datagrams of the stack to plain peers, in batches for each run by the same socket, and gives the
    /// others to DTLS. Returns how many there were.
    fn stack_outbound(&mut self, now: Instant) -> usize {
        let mut count = 0;
        let mut outbox = Outbox::new(&mut self.names);
        let mut current = None;
        let secure = &mut self.core.secure;
        for transmit in self.core.stack.transmits() {
            count += 1;
            let Route::Plain(address) = transmit.peer.route() else {
                secure.send(transmit.peer, transmit.datagram, now);
                continue;
            };
            let listener = transmit.peer.listener();
            if outbox.is_full() || current.is_some_and(|current| current != listener) {
                self.traffic.add(flush(&self.sockets, current, &mut outbox));
            }
            current = Some(listener);
            outbox.push(address, transmit.datagram);
        }
        self.traffic.add(flush(&self.sockets, current, &mut outbox));
        count
    }

    /// Publishes counters, then events: who sees an event sees its effect on the counters.
    fn report(&mut self) {
        let mut statistics = lock(&self.shared.statistics);
        statistics.clear();
        self.core.statistics(&mut statistics);
        statistics.extend([
            ("datagrams_received", self.traffic.received),
            ("bytes_received", self.traffic.received_bytes),
            ("datagrams_unusable", self.traffic.unusable),
            ("datagrams_sent", self.traffic.sent),
            ("bytes_sent", self.traffic.sent_bytes),
            ("datagrams_lost", self.traffic.lost),
            ("datagrams_dropped", self.traffic.dropped),
            ("socket_errors", self.traffic.errors),
            ("listeners", self.sockets.len() as u64),
        ]);
        drop(statistics);
        self.core.reporter.publish();
    }
}

fn flush(sockets: &[Socket], listener: Option<u16>, outbox: &mut Outbox<'_>) -> Sent {
    match listener.and_then(|listener| sockets.get(usize::from(listener))) {
        Some(socket) => outbox.send(socket),
        None => Sent::default(),
    }
}

/// Sends the datagrams of one listener; returns how many there were.
fn send_all<'a>(
    sockets: &[Socket],
    names: &'a mut Vec<SockAddr>,
    listener: u16,
    transmits: impl Iterator<Item = dtls::Transmit<'a>>,
) -> (usize, Sent) {
    let mut total = Sent::default();
    let mut count = 0;
    let mut outbox = Outbox::new(names);
    for transmit in transmits {
        count += 1;
        outbox.push(transmit.address, transmit.datagram);
        if outbox.is_full() {
            total.add(flush(sockets, Some(listener), &mut outbox));
        }
    }
    total.add(flush(sockets, Some(listener), &mut outbox));
    (count, total)
}
