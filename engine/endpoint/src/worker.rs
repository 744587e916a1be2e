//! The engine's thread: waits on its sockets, drives the core, sends.
//!
//! `inbound` and `outbound` are the only places where datagrams pass between sockets and `CoAP`.

use std::sync::Arc;
use std::time::{Duration, Instant as Monotonic, SystemTime, UNIX_EPOCH};

use coap::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;

use crate::action::Action;
use crate::core::Core;
use crate::key::{PeerKey, Route};
use crate::shared::{Shared, lock};
use crate::socket::{Inbox, Outbox, Sent};

/// Batches read from one socket before the others, the actions and the timers get their turn.
const BATCHES_A_TURN: usize = 4;

#[derive(Default)]
struct Traffic {
    received: u64,
    received_bytes: u64,
    unusable: u64,
    sent: u64,
    sent_bytes: u64,
    lost: u64,
    errors: u64,
}

/// State of the thread.
pub struct Worker {
    core: Core,
    shared: Arc<Shared>,
    sockets: Vec<Socket>,
    inbox: Inbox,
    started: Monotonic,
    traffic: Traffic,
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
            started: Monotonic::now(),
            traffic: Traffic::default(),
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
        self.turn(now);
    }

    fn now(&mut self) -> Instant {
        let passed = self.started.elapsed();
        self.core.site.epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        self.core.site.seconds = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        Instant::from_micros(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX))
    }

    /// Sleeps until a socket is readable, Python calls, or a timer is due; says which sockets are readable.
    fn wait(&mut self, ready: &mut Vec<u16>) {
        let now = self.now();
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
            let Ok(count) = self.inbox.receive(socket) else {
                self.traffic.errors += 1;
                return;
            };
            // What Python said before a datagram was sent to us holds for that datagram.
            self.actions(now);
            let mut usable = 0;
            for (address, datagram) in self.inbox.datagrams() {
                usable += 1;
                self.traffic.received_bytes += datagram.len() as u64;
                self.core.datagram(PeerKey::new(listener, address), datagram, now);
            }
            self.traffic.received += count as u64;
            self.traffic.unusable += (count as u64).saturating_sub(usable);
            if count < crate::socket::BATCH {
                return;
            }
        }
    }

    /// Carries out what Python asks.
    fn actions(&mut self, now: Instant) {
        for action in self.shared.take_actions() {
            match action {
                Action::Listen(socket) => self.sockets.push(socket),
                action => self.core.act(action, now),
            }
        }
    }

    /// Carries out Python's actions, the timers, and everything that is to go out.
    fn turn(&mut self, now: Instant) {
        self.actions(now);
        self.core.timeout(now);
        self.outbound();
        self.report();
    }

    /// Sends what the core has ready, in batches for each run of datagrams by the same socket.
    fn outbound(&mut self) {
        let mut total = Sent::default();
        let mut count = 0;
        let mut outbox = Outbox::default();
        let mut current = None;
        for transmit in self.core.stack.transmits() {
            count += 1;
            let listener = transmit.peer.listener();
            let Route::Plain(address) = transmit.peer.route() else {
                continue;
            };
            if outbox.is_full() || current.is_some_and(|current| current != listener) {
                add(&mut total, flush(&self.sockets, current, &mut outbox));
            }
            current = Some(listener);
            outbox.push(address, transmit.datagram);
        }
        add(&mut total, flush(&self.sockets, current, &mut outbox));
        drop(outbox);
        self.core.stack.sent(count);
        self.traffic.sent += total.datagrams;
        self.traffic.sent_bytes += total.bytes;
        self.traffic.lost += total.lost;
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

fn add(total: &mut Sent, more: Sent) {
    total.datagrams += more.datagrams;
    total.bytes += more.bytes;
    total.lost += more.lost;
}
