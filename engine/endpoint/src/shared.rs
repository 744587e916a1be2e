//! What the engine's thread and Python's thread share: the two bounded queues and their wake-ups.
//!
//! Neither side waits for the other's work while it holds a lock. A descriptor is written only when its queue goes
//! from empty to non-empty, so a busy queue costs no system calls.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant as Monotonic;

use coap::Instant;
use rustix::event::{EventfdFlags, eventfd};

use crate::action::Action;
use crate::event::Event;

/// Bytes of request bodies that may wait for Python, whatever their number.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// A lock whose poison means nothing here: no invariant spans a panic inside it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A descriptor that is readable while it is raised.
pub struct Signal {
    fd: OwnedFd,
}

impl Signal {
    fn new() -> io::Result<Self> {
        Ok(Self {
            fd: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// Makes it readable.
    pub fn raise(&self) {
        // The only possible failure is a counter at its limit: then it is readable already.
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable.
    pub fn clear(&self) {
        // It fails when it was not raised, which is what is wanted.
        let _ = rustix::io::read(&self.fd, &mut [0_u8; 8]);
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[derive(Default)]
struct Events {
    waiting: VecDeque<Event>,
}

/// Numbers of events of each class that has a bound, waiting in the queue.
#[derive(Default)]
pub struct Depths {
    /// Requests.
    pub requests: AtomicUsize,
    /// Bytes of their bodies.
    pub bytes: AtomicUsize,
    /// Notifications and progress, of which only the latest counts.
    pub news: AtomicUsize,
    /// Reports of liveness.
    pub alive: AtomicUsize,
    /// News of handshakes and associations.
    pub security: AtomicUsize,
}

impl Depths {
    fn count(&self, event: &Event, add: bool) {
        let change = |counter: &AtomicUsize, by: usize| {
            if add {
                counter.fetch_add(by, Ordering::Relaxed)
            } else {
                counter.fetch_sub(by, Ordering::Relaxed)
            };
        };
        match event {
            Event::Request { request, .. } => {
                change(&self.requests, 1);
                change(&self.bytes, request.payload.len());
            }
            Event::Notification { .. } | Event::Progress { .. } | Event::Download(_) => change(&self.news, 1),
            Event::Alive(_) => change(&self.alive, 1),
            Event::Security(_) => change(&self.security, 1),
            Event::Response { .. } | Event::Failure { .. } | Event::Cancelled { .. } => {}
        }
    }

    /// True when no further request may wait.
    pub fn is_busy(&self, max_requests: usize) -> bool {
        self.requests.load(Ordering::Relaxed) >= max_requests
            || self.bytes.load(Ordering::Relaxed) >= MAX_WAITING_BYTES
    }
}

#[derive(Default)]
struct Actions {
    waiting: Vec<Action>,
    /// Callers that wait for room.
    callers: usize,
}

/// Both queues.
pub struct Shared {
    events: Mutex<Events>,
    /// How much of each class waits for Python.
    pub depths: Depths,
    /// Readable while events wait.
    pub events_signal: Signal,
    actions: Mutex<Actions>,
    actions_taken: Condvar,
    wake_signal: Signal,
    awake: AtomicBool,
    /// The thread keeps news back until Python drains.
    pub holding_back: AtomicBool,
    stopping: AtomicBool,
    finished: AtomicBool,
    max_actions: usize,
    started: Monotonic,
    /// Latest counters of the thread.
    pub statistics: Mutex<Vec<(&'static str, u64)>>,
}

impl Shared {
    /// Empty queues.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new(max_actions: usize) -> io::Result<Self> {
        Ok(Self {
            events: Mutex::default(),
            depths: Depths::default(),
            events_signal: Signal::new()?,
            actions: Mutex::default(),
            actions_taken: Condvar::new(),
            wake_signal: Signal::new()?,
            awake: AtomicBool::new(false),
            holding_back: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            max_actions,
            started: Monotonic::now(),
            statistics: Mutex::default(),
        })
    }

    /// The time of this engine.
    pub fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    // Python's side

    /// Takes up to `limit` events.
    pub fn drain(&self, limit: usize) -> Vec<Event> {
        let mut events = lock(&self.events);
        let count = limit.min(events.waiting.len());
        let taken: Vec<Event> = events.waiting.drain(..count).collect();
        for event in &taken {
            self.depths.count(event, false);
        }
        if events.waiting.is_empty() && !self.is_finished() {
            self.events_signal.clear();
        }
        taken
    }

    /// Number of events that wait.
    pub fn events_waiting(&self) -> usize {
        lock(&self.events).waiting.len()
    }

    /// Queues an action, or gives it back when the queue is full.
    ///
    /// # Errors
    /// The action.
    pub fn submit(&self, action: Action) -> Result<(), Box<Action>> {
        let mut actions = lock(&self.actions);
        if actions.waiting.len() >= self.max_actions {
            return Err(Box::new(action));
        }
        actions.waiting.push(action);
        Ok(())
    }

    /// Queues an action that must not be lost; when the queue is full it waits until the thread has taken it.
    pub fn submit_or_wait(&self, action: Action) {
        let mut actions = lock(&self.actions);
        while actions.waiting.len() >= self.max_actions && !self.is_finished() {
            self.wake();
            actions.callers += 1;
            actions = self
                .actions_taken
                .wait(actions)
                .unwrap_or_else(PoisonError::into_inner);
            actions.callers -= 1;
        }
        actions.waiting.push(action);
    }

    /// Number of actions not yet taken.
    pub fn actions_waiting(&self) -> usize {
        lock(&self.actions).waiting.len()
    }

    /// Lets the thread run, when it does not know yet that it should.
    pub fn wake(&self) {
        if !self.awake.swap(true, Ordering::AcqRel) {
            self.wake_signal.raise();
        }
    }

    /// Tells the thread to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    /// True when the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    // the thread's side

    /// Puts events into the queue, in order, and raises the signal when there were none.
    pub fn publish(&self, batch: &mut Vec<Event>) {
        if batch.is_empty() {
            return;
        }
        let mut events = lock(&self.events);
        let was_empty = events.waiting.is_empty();
        for event in batch.iter() {
            self.depths.count(event, true);
        }
        events.waiting.extend(batch.drain(..));
        if was_empty {
            self.events_signal.raise();
        }
    }

    /// Takes all actions, in order, for an empty list, whose memory serves the next ones.
    pub fn take_actions(&self, taken: &mut Vec<Action>) {
        debug_assert!(taken.is_empty());
        let mut actions = lock(&self.actions);
        std::mem::swap(&mut actions.waiting, taken);
        // A notification is a system call, whether somebody waits or not.
        if actions.callers > 0 {
            self.actions_taken.notify_all();
        }
    }

    /// What the thread waits on besides its sockets.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake_signal.as_fd()
    }

    /// Called by the thread when it has woken up, before it takes the actions.
    pub fn woken(&self) {
        self.wake_signal.clear();
        self.awake.store(false, Ordering::Release);
    }

    /// True when the thread shall end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Called by the thread at its very end, whatever the reason; nobody waits for it any more.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Release);
        self.events_signal.raise();
        let _actions = lock(&self.actions);
        self.actions_taken.notify_all();
    }
}
