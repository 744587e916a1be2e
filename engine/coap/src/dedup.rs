//! Recognition of duplicates (RFC 7252 4.5) in bounded memory, oldest forgotten first.
//!
//! A duplicate has the sender, the Message ID and all the bytes of the original. Equal ids with other bytes are a
//! sender that started again or whose ids wrapped around: a new message.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use crate::config::Config;
use crate::event::Peer;
use crate::random::{Keyed, Map};
use crate::time::Instant;

/// How a duplicate is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// Not at all: the original is being worked on, or wants no answer.
    Silent,
    /// By an empty ACK.
    Acknowledge,
    /// By these bytes.
    Datagram(Box<[u8]>),
}

impl Replay {
    fn len(&self) -> usize {
        if let Self::Datagram(bytes) = self {
            bytes.len()
        } else {
            0
        }
    }
}

#[derive(Debug)]
struct Entry {
    fingerprint: u64,
    expires: Instant,
    replay: Replay,
}

#[derive(Debug)]
pub(crate) struct Dedup<P> {
    map: Map<(P, u16), Entry>,
    /// In order of expiry, one queue for each of the two lifetimes.
    queues: [VecDeque<(P, u16, Instant)>; 2],
    bytes: usize,
    keys: Keyed,
}

impl<P: Peer> Dedup<P> {
    pub(crate) fn new(keys: Keyed) -> Self {
        Self {
            map: Map::with_hasher(keys),
            queues: [VecDeque::new(), VecDeque::new()],
            bytes: 0,
            keys,
        }
    }

    fn fingerprint(&self, datagram: &[u8]) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write(datagram);
        hasher.finish()
    }

    /// How to answer when this is a duplicate; `None` when it is new.
    pub(crate) fn find(&self, peer: P, mid: u16, datagram: &[u8], now: Instant) -> Option<&Replay> {
        let entry = self.map.get(&(peer, mid))?;
        (entry.expires > now && entry.fingerprint == self.fingerprint(datagram)).then_some(&entry.replay)
    }

    /// Remembers a message for `EXCHANGE_LIFETIME` (CON) or `NON_LIFETIME`.
    pub(crate) fn remember(&mut self, key: (P, u16), datagram: &[u8], replay: Replay, how: &Memory<'_>) {
        let expires = how.now + how.lifetime;
        while self.queued() >= how.config.max_seen.max(1) || self.bytes > how.config.max_seen_bytes {
            if !self.forget_oldest() {
                break;
            }
        }
        self.bytes += replay.len();
        let entry = Entry {
            fingerprint: self.fingerprint(datagram),
            expires,
            replay,
        };
        if let Some(old) = self.map.insert(key, entry) {
            self.bytes -= old.replay.len();
        }
        self.queue(how.confirmable).push_back((key.0, key.1, expires));
    }

    fn queue(&mut self, confirmable: bool) -> &mut VecDeque<(P, u16, Instant)> {
        let [con, non] = &mut self.queues;
        if confirmable { con } else { non }
    }

    fn queued(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Sets how duplicates of a remembered message are answered from now on.
    pub(crate) fn answer(&mut self, peer: P, mid: u16, replay: Replay) {
        if let Some(entry) = self.map.get_mut(&(peer, mid)) {
            self.bytes = self.bytes + replay.len() - entry.replay.len();
            entry.replay = replay;
        }
    }

    /// Forgets the entry that expires first; false when there is none.
    fn forget_oldest(&mut self) -> bool {
        let fronts = self
            .queues
            .each_ref()
            .map(|queue| queue.front().map(|(_, _, expires)| *expires));
        let confirmable = match fronts {
            [Some(con), Some(non)] => con <= non,
            [Some(_), None] => true,
            [None, Some(_)] => false,
            [None, None] => return false,
        };
        if let Some((peer, mid, expires)) = self.queue(confirmable).pop_front()
            && self
                .map
                .get(&(peer, mid))
                .is_some_and(|entry| entry.expires == expires)
            && let Some(entry) = self.map.remove(&(peer, mid))
        {
            self.bytes -= entry.replay.len();
        }
        true
    }

    /// Forgets what has expired.
    pub(crate) fn sweep(&mut self, now: Instant) {
        while self
            .queues
            .iter()
            .any(|queue| queue.front().is_some_and(|(_, _, expires)| *expires <= now))
        {
            self.forget_oldest();
        }
        if self.map.is_empty() && self.map.capacity() > 4096 {
            self.map.shrink_to_fit();
            self.queues.iter_mut().for_each(VecDeque::shrink_to_fit);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queued()
    }
}

/// How long and within which bounds a message is remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory<'a> {
    pub(crate) confirmable: bool,
    pub(crate) lifetime: Duration,
    pub(crate) config: &'a Config,
    pub(crate) now: Instant,
}
