//! Large answers kept for the Block2 requests that follow (RFC 7959 2.4, 2.7), in bounded memory.

use std::sync::Arc;

use crate::config::Config;
use crate::event::Peer;
use crate::message::{Etag, Response};
use crate::random::{Keyed, Map};
use crate::time::Instant;

/// Peer, and the hash of method, path, query and Accept.
pub(crate) type Key<P> = (P, u64);

/// An answer of which every block can be made.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The response without its body.
    pub(crate) head: Response,
    pub(crate) etag: Etag,
    pub(crate) body: Arc<[u8]>,
    touched: Instant,
}

#[derive(Debug)]
pub(crate) struct Answers<P> {
    map: Map<Key<P>, Kept>,
    bytes: usize,
}

impl Kept {
    pub(crate) fn new(head: Response, etag: Etag, body: Arc<[u8]>) -> Self {
        Self {
            head,
            etag,
            body,
            touched: Instant::ZERO,
        }
    }
}

impl<P: Peer> Answers<P> {
    pub(crate) fn new(keys: Keyed) -> Self {
        Self {
            map: Map::with_hasher(keys),
            bytes: 0,
        }
    }

    /// Keeps an answer, in the place of the least recently used ones where room is needed.
    pub(crate) fn put(&mut self, key: Key<P>, kept: Kept, config: &Config, now: Instant) {
        self.remove(key);
        let len = kept.body.len();
        if len > config.max_answer_bytes || config.max_answers == 0 {
            return;
        }
        while self.map.len() >= config.max_answers || self.bytes + len > config.max_answer_bytes {
            let Some((&oldest, _)) = self.map.iter().min_by_key(|(_, kept)| kept.touched) else {
                break;
            };
            self.remove(oldest);
        }
        self.bytes += len;
        self.map.insert(key, Kept { touched: now, ..kept });
    }

    pub(crate) fn get(&mut self, key: Key<P>, now: Instant) -> Option<Kept> {
        let kept = self.map.get_mut(&key)?;
        kept.touched = now;
        Some(kept.clone())
    }

    fn remove(&mut self, key: Key<P>) {
        if let Some(kept) = self.map.remove(&key) {
            self.bytes -= kept.body.len();
        }
    }

    pub(crate) fn sweep(&mut self, config: &Config, now: Instant) {
        let lifetime = config.exchange_lifetime();
        let bytes = &mut self.bytes;
        self.map.retain(|_, kept| {
            let keep = now.since(kept.touched) < lifetime;
            if !keep {
                *bytes -= kept.body.len();
            }
            keep
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}
