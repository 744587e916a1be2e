//! Handshakes under way with clients, within bounds: in number, by prefix, in bytes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use coap::{Instant, Keyed, Map};

use crate::bounds::{Prefix, prefix};
use crate::config::Config;
use crate::server_handshake::ServerHandshake;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) handshake: ServerHandshake,
    /// Its place in the order of progress.
    progress: Instant,
    /// Its timer.
    deadline: Instant,
    /// Bytes of it that are in the total.
    bytes: usize,
}

/// One handshake at most for each address.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    entries: Map<u64, Box<Entry>>,
    by_address: Map<SocketAddr, u64>,
    by_prefix: Map<Prefix, Vec<u64>>,
    by_progress: BTreeSet<(Instant, u64)>,
    by_deadline: BTreeSet<(Instant, u64)>,
    last_id: u64,
    pub(crate) bytes: usize,
}

impl HalfOpen {
    pub(crate) fn new(keyed: Keyed) -> Self {
        Self {
            entries: Map::with_hasher(keyed),
            by_address: Map::with_hasher(keyed),
            by_prefix: Map::with_hasher(keyed),
            by_progress: BTreeSet::new(),
            by_deadline: BTreeSet::new(),
            last_id: 0,
            bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Sizes of the other tables, which must go back to zero with `len`.
    pub(crate) fn index_len(&self) -> usize {
        self.by_address.len() + self.by_prefix.len() + self.by_progress.len() + self.by_deadline.len()
    }

    pub(crate) fn at(&self, address: SocketAddr) -> Option<u64> {
        self.by_address.get(&address).copied()
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut ServerHandshake> {
        self.entries.get_mut(&id).map(|entry| &mut entry.handshake)
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    /// The handshake that leaves so that there is room for one with `address`; an error when none may: only what
    /// has made no progress for a while does, and the longest stalled first.
    pub(crate) fn room_for(
        &self,
        address: SocketAddr,
        config: &Config,
        now: Instant,
    ) -> Result<Option<u64>, ()> {
        let stalled = |id: &u64| self.entries.get(id).map(|entry| (entry.progress, *id));
        let longest = if let Some(same) = self
            .by_prefix
            .get(&prefix(address))
            .filter(|same| same.len() >= config.max_half_open_per_prefix)
        {
            same.iter().filter_map(stalled).min()
        } else if self.entries.len() >= config.max_half_open {
            self.by_progress.first().copied()
        } else {
            return Ok(None);
        };
        longest
            .filter(|(progress, _)| now.since(*progress) >= config.stall)
            .map(|(_, id)| Some(id))
            .ok_or(())
    }

    pub(crate) fn insert(&mut self, handshake: ServerHandshake, config: &Config) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let address = handshake.core.address;
        let progress = handshake.core.progress;
        let deadline = handshake.core.deadline(config);
        self.by_address.insert(address, id);
        self.by_prefix.entry(prefix(address)).or_default().push(id);
        self.by_progress.insert((progress, id));
        self.by_deadline.insert((deadline, id));
        self.entries.insert(
            id,
            Box::new(Entry {
                handshake,
                progress,
                deadline,
                bytes: 0,
            }),
        );
        id
    }

    /// Brings the tables up to date after a step of a handshake.
    pub(crate) fn update(&mut self, id: u64, config: &Config) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let core = &entry.handshake.core;
        if core.progress != entry.progress {
            self.by_progress.remove(&(entry.progress, id));
            self.by_progress.insert((core.progress, id));
            entry.progress = core.progress;
        }
        let deadline = core.deadline(config);
        if deadline != entry.deadline {
            self.by_deadline.remove(&(entry.deadline, id));
            self.by_deadline.insert((deadline, id));
            entry.deadline = deadline;
        }
        let bytes = core.reassembly.bytes();
        self.bytes = self.bytes - entry.bytes + bytes;
        entry.bytes = bytes;
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<ServerHandshake> {
        let entry = self.entries.remove(&id)?;
        let address = entry.handshake.core.address;
        if self.by_address.get(&address) == Some(&id) {
            self.by_address.remove(&address);
        }
        if let Some(same) = self.by_prefix.get_mut(&prefix(address)) {
            same.retain(|other| *other != id);
            if same.is_empty() {
                self.by_prefix.remove(&prefix(address));
            }
        }
        self.by_progress.remove(&(entry.progress, id));
        self.by_deadline.remove(&(entry.deadline, id));
        self.bytes -= entry.bytes;
        if self.entries.is_empty() && self.entries.capacity() > 4096 {
            self.entries.shrink_to_fit();
            self.by_address.shrink_to_fit();
            self.by_prefix.shrink_to_fit();
        }
        Some(entry.handshake)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(at, _)| *at)
    }

    /// One whose time has come, and whether it has come to its end.
    pub(crate) fn due(&self, lifetime: Duration, now: Instant) -> Option<(u64, bool)> {
        let (at, id) = *self.by_deadline.first()?;
        if at > now {
            return None;
        }
        let entry = self.entries.get(&id)?;
        Some((id, now.since(entry.handshake.core.created) >= lifetime))
    }
}
