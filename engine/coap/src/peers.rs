//! What is kept of a peer: Message IDs (RFC 7252 4.4), NSTART and the queue behind it (RFC 7252 4.7).
//!
//! A peer without work has no state. So that its ids are still not used again within `EXCHANGE_LIFETIME`, the first
//! id of a new state follows the time, 244 ids a second, and a state that ran ahead of this waits until time has
//! caught up.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use crate::event::Peer;
use crate::random::{Keyed, Map};
use crate::time::Instant;
use crate::timers::Owner;

#[derive(Debug)]
struct State {
    born: u64,
    issued: u64,
    first: u16,
    /// Listed in `idle`.
    listed: bool,
    active: usize,
    queue: VecDeque<u64>,
    members: Vec<Owner>,
}

#[derive(Debug)]
pub(crate) struct Peers<P> {
    map: Map<P, State>,
    idle: Vec<P>,
    keys: Keyed,
    max: usize,
    /// For unacknowledged messages to peers for whom there is no room.
    spare: u16,
}

/// The time in steps of one Message ID.
fn tick(now: Instant) -> u64 {
    now.as_micros() >> 12
}

impl<P: Peer> Peers<P> {
    pub(crate) fn new(keys: Keyed, max: usize) -> Self {
        Self {
            map: Map::with_hasher(keys),
            idle: Vec::new(),
            keys,
            max,
            spare: 0,
        }
    }

    fn open(&mut self, peer: P, now: Instant) -> Option<&mut State> {
        if self.map.len() >= self.max && !self.map.contains_key(&peer) {
            return None;
        }
        let keys = self.keys;
        Some(self.map.entry(peer).or_insert_with(|| {
            let born = tick(now);
            let [a, b, ..] = keys.hash_one((peer, "mid")).wrapping_add(born).to_le_bytes();
            State {
                born,
                issued: 0,
                first: u16::from_le_bytes([a, b]),
                listed: false,
                active: 0,
                queue: VecDeque::new(),
                members: Vec::new(),
            }
        }))
    }

    /// Ties an owner to its peer; false when there are too many peers.
    pub(crate) fn join(&mut self, peer: P, owner: Owner, now: Instant) -> bool {
        let state = self.open(peer, now);
        state.map(|state| state.members.push(owner)).is_some()
    }

    pub(crate) fn leave(&mut self, peer: P, owner: Owner, now: Instant) {
        if let Some(state) = self.map.get_mut(&peer) {
            if let Some(at) = state.members.iter().position(|member| *member == owner) {
                state.members.swap_remove(at);
            }
            self.settle(peer, now);
        }
    }

    pub(crate) fn members(&self, peer: P) -> Vec<Owner> {
        self.map
            .get(&peer)
            .map(|state| state.members.clone())
            .unwrap_or_default()
    }

    /// Drops a state that nobody needs, or lists it to be dropped later.
    fn settle(&mut self, peer: P, now: Instant) {
        let Some(state) = self.map.get_mut(&peer) else {
            return;
        };
        if !state.members.is_empty() {
            return;
        }
        if state.is_behind(now) {
            if !state.listed {
                self.map.remove(&peer);
            }
        } else if !state.listed {
            state.listed = true;
            self.idle.push(peer);
        }
    }

    /// A Message ID for a message to this peer.
    pub(crate) fn mid(&mut self, peer: P, now: Instant) -> u16 {
        let Some(state) = self.open(peer, now) else {
            self.spare = self.spare.wrapping_add(1);
            return self.spare;
        };
        let [a, b, ..] = state.issued.to_le_bytes();
        state.issued += 1;
        let mid = state.first.wrapping_add(u16::from_le_bytes([a, b]));
        if state.members.is_empty() {
            self.settle(peer, now);
        }
        mid
    }

    /// True when `id` may send now; otherwise it is queued and comes out of `release` later.
    pub(crate) fn acquire(&mut self, peer: P, id: u64, nstart: usize) -> bool {
        let Some(state) = self.map.get_mut(&peer) else {
            return true;
        };
        let free = state.active < nstart.max(1) && state.queue.is_empty();
        if free {
            state.active += 1;
        } else {
            state.queue.push_back(id);
        }
        free
    }

    /// Ends an outstanding interaction; the next in the queue takes its place.
    pub(crate) fn release(&mut self, peer: P) -> Option<u64> {
        let state = self.map.get_mut(&peer)?;
        let next = state.queue.pop_front();
        if next.is_none() {
            state.active = state.active.saturating_sub(1);
        }
        next
    }

    pub(crate) fn unqueue(&mut self, peer: P, id: u64) {
        if let Some(state) = self.map.get_mut(&peer) {
            state.queue.retain(|queued| *queued != id);
        }
    }

    pub(crate) fn queued(&self, peer: P) -> usize {
        self.map.get(&peer).map_or(0, |state| state.queue.len())
    }

    pub(crate) fn sweep(&mut self, now: Instant) {
        let map = &mut self.map;
        self.idle.retain(|peer| {
            let Some(state) = map.get_mut(peer) else {
                return false;
            };
            if !state.members.is_empty() {
                state.listed = false;
                return false;
            }
            let done = state.is_behind(now);
            if done {
                map.remove(peer);
            }
            !done
        });
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.idle.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}

impl State {
    /// A state opened now would begin behind all the ids that this one has issued.
    fn is_behind(&self, now: Instant) -> bool {
        self.born.saturating_add(self.issued) <= tick(now)
    }
}
