//! Assembly of request bodies that come by Block1 (RFC 7959 2.5, 2.9).
//!
//! An operation is known by peer, method, path and query, never by its token: real clients change the token with
//! every block. Bounded in bytes a body, bytes in total, count and idle time.

use std::time::Duration;

use crate::block::{Block, RESERVED_SZX};
use crate::config::Config;
use crate::event::Peer;
use crate::random::{Keyed, Map};
use crate::time::Instant;

/// An operation that has not been touched for this long makes room for a new one when the table is full.
const EVICT_AFTER: Duration = Duration::from_secs(10);

/// Peer, and the hash of method, path and query.
pub(crate) type Key<P> = (P, u64);

#[derive(Debug, Default)]
struct Assembly {
    body: Vec<u8>,
    touched: Instant,
    done: Option<Done>,
}

/// A complete body that was handed on. It is kept so that a repeated last block is answered the same.
#[derive(Debug)]
struct Done {
    last: Block,
    payload: Box<[u8]>,
    exchange: u64,
    /// The answer from behind its token on, and its code.
    answer: Option<(u8, Box<[u8]>)>,
}

/// What to do with a block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 2.31
    Continue,
    /// This is the whole body.
    Complete(Vec<u8>),
    /// 4.08: a block is missing.
    Incomplete,
    /// 4.13: the body is above the bound.
    TooLarge,
    /// 4.00: a block with more to follow is not full, or its size is reserved.
    Malformed,
    /// 5.03: no room for a further operation.
    Busy,
    /// The last block again, while the application works on the body.
    Pending(u64),
    /// The last block again: the same answer, as code and the bytes from behind the token on.
    Answered(u8, Box<[u8]>),
}

#[derive(Debug)]
pub(crate) struct Assemblies<P> {
    map: Map<Key<P>, Assembly>,
    bytes: usize,
}

/// A block as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) block: Block,
    pub(crate) payload: &'a [u8],
    pub(crate) size1: Option<u32>,
}

impl<P: Peer> Assemblies<P> {
    pub(crate) fn new(keys: Keyed) -> Self {
        Self {
            map: Map::with_hasher(keys),
            bytes: 0,
        }
    }

    pub(crate) fn take(
        &mut self,
        key: Key<P>,
        incoming: Incoming<'_>,
        config: &Config,
        now: Instant,
    ) -> Outcome {
        let Incoming {
            block,
            payload,
            size1,
        } = incoming;
        let bad = if block.more {
            payload.len() != block.size()
        } else {
            payload.len() > block.size()
        };
        if block.szx == RESERVED_SZX || bad {
            return Outcome::Malformed;
        }
        if let Some(repeated) = self.repeated_last(key, incoming, now) {
            return repeated;
        }
        if block.num == 0 {
            let announced = size1.map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX));
            if announced.max(payload.len()) > config.max_body {
                self.remove(key);
                return Outcome::TooLarge;
            }
            if !block.more {
                return self.finish(key, incoming, payload.to_vec(), now);
            }
            return self.restart(key, payload, config, now);
        }
        self.append(key, incoming, config, now)
    }

    fn repeated_last(&mut self, key: Key<P>, incoming: Incoming<'_>, now: Instant) -> Option<Outcome> {
        // A body of a single block has nothing to be repeated in the middle of: it is a new request.
        if incoming.block.num == 0 {
            return None;
        }
        let assembly = self.map.get_mut(&key)?;
        let done = assembly.done.as_ref()?;
        if done.last != incoming.block || *done.payload != *incoming.payload {
            return None;
        }
        assembly.touched = now;
        Some(match &done.answer {
            Some((code, tail)) => Outcome::Answered(*code, tail.clone()),
            None => Outcome::Pending(done.exchange),
        })
    }

    fn restart(&mut self, key: Key<P>, payload: &[u8], config: &Config, now: Instant) -> Outcome {
        self.remove(key);
        let full = self.map.len() >= config.max_assemblies && !self.evict(now);
        if full || self.bytes + payload.len() > config.max_assembly_bytes {
            return Outcome::Busy;
        }
        self.bytes += payload.len();
        self.map.insert(
            key,
            Assembly {
                body: payload.to_vec(),
                touched: now,
                done: None,
            },
        );
        Outcome::Continue
    }

    fn append(&mut self, key: Key<P>, incoming: Incoming<'_>, config: &Config, now: Instant) -> Outcome {
        let Incoming { block, payload, .. } = incoming;
        let (offset, end) = (block.offset(), block.offset() + payload.len());
        let Some(assembly) = self.map.get_mut(&key).filter(|assembly| assembly.done.is_none()) else {
            return Outcome::Incomplete;
        };
        let len = assembly.body.len();
        if offset != len {
            let known = block.more && assembly.body.get(offset..end).is_some_and(|have| have == payload);
            return if known {
                Outcome::Continue
            } else {
                Outcome::Incomplete
            };
        }
        if end > config.max_body {
            self.remove(key);
            return Outcome::TooLarge;
        }
        if self.bytes + payload.len() > config.max_assembly_bytes {
            return Outcome::Busy;
        }
        assembly.touched = now;
        assembly.body.extend_from_slice(payload);
        self.bytes += payload.len();
        if block.more {
            return Outcome::Continue;
        }
        let body = std::mem::take(&mut assembly.body);
        self.bytes -= body.len();
        self.finish(key, incoming, body, now)
    }

    fn finish(&mut self, key: Key<P>, incoming: Incoming<'_>, body: Vec<u8>, now: Instant) -> Outcome {
        if incoming.block.num == 0 {
            self.remove(key);
        } else {
            let payload = incoming.payload.into();
            let done = Done {
                last: incoming.block,
                payload,
                exchange: 0,
                answer: None,
            };
            self.map.insert(
                key,
                Assembly {
                    body: Vec::new(),
                    touched: now,
                    done: Some(done),
                },
            );
        }
        Outcome::Complete(body)
    }

    /// The exchange that the complete body became.
    pub(crate) fn handed_on(&mut self, key: Key<P>, exchange: u64) {
        if let Some(done) = self.map.get_mut(&key).and_then(|assembly| assembly.done.as_mut()) {
            done.exchange = exchange;
        }
    }

    /// The answer of that exchange.
    pub(crate) fn answered(&mut self, key: Key<P>, exchange: u64, code: u8, tail: &[u8]) {
        let done = self.map.get_mut(&key).and_then(|assembly| assembly.done.as_mut());
        if let Some(done) = done.filter(|done| done.exchange == exchange) {
            done.answer = Some((code, tail.into()));
        }
    }

    pub(crate) fn remove(&mut self, key: Key<P>) {
        if let Some(assembly) = self.map.remove(&key) {
            self.bytes -= assembly.body.len();
        }
    }

    fn evict(&mut self, now: Instant) -> bool {
        let oldest = self.map.iter().min_by_key(|(_, assembly)| assembly.touched);
        let Some((&key, _)) = oldest.filter(|(_, assembly)| now.since(assembly.touched) >= EVICT_AFTER)
        else {
            return false;
        };
        self.remove(key);
        true
    }

    pub(crate) fn sweep(&mut self, config: &Config, now: Instant) {
        let lifetime = config.exchange_lifetime();
        let bytes = &mut self.bytes;
        self.map.retain(|_, assembly| {
            let keep = now.since(assembly.touched) < lifetime;
            if !keep {
                *bytes -= assembly.body.len();
            }
            keep
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key<u8> = (1, 2);

    fn table() -> Assemblies<u8> {
        Assemblies::new(Keyed::new([1, 2]))
    }

    fn block(num: u32, more: bool, payload: &[u8]) -> Incoming<'_> {
        Incoming {
            block: Block::new(num, more, 16),
            payload,
            size1: None,
        }
    }

    fn small() -> Config {
        Config {
            max_body: 64,
            max_assemblies: 2,
            max_assembly_bytes: 96,
            ..Config::default()
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn blocks_in_order_make_the_body() {
        let mut table = table();
        let config = small();
        assert_eq!(
            table.take(KEY, block(0, true, &[1; 16]), &config, at(0)),
            Outcome::Continue
        );
        assert_eq!(
            table.take(KEY, block(1, true, &[2; 16]), &config, at(0)),
            Outcome::Continue
        );
        let body = [vec![1; 16], vec![2; 16], vec![3; 5]].concat();
        assert_eq!(
            table.take(KEY, block(2, false, &[3; 5]), &config, at(0)),
            Outcome::Complete(body)
        );
        assert_eq!(table.bytes, 0);
    }

    #[test]
    fn a_gap_is_incomplete_and_block_zero_starts_again() {
        let mut table = table();
        let config = small();
        assert_eq!(
            table.take(KEY, block(1, true, &[2; 16]), &config, at(0)),
            Outcome::Incomplete
        );
        table.take(KEY, block(0, true, &[1; 16]), &config, at(0));
        assert_eq!(
            table.take(KEY, block(2, true, &[2; 16]), &config, at(0)),
            Outcome::Incomplete
        );
        assert_eq!(
            table.take(KEY, block(0, true, &[9; 16]), &config, at(0)),
            Outcome::Continue
        );
        let body = [vec![9; 16], vec![3]].concat();
        assert_eq!(
            table.take(KEY, block(1, false, &[3]), &config, at(0)),
            Outcome::Complete(body)
        );
    }

    #[test]
    fn a_repeated_block_is_answered_the_same_and_changed_bytes_are_not_taken() {
        let mut table = table();
        let config = small();
        table.take(KEY, block(0, true, &[1; 16]), &config, at(0));
        table.take(KEY, block(1, true, &[2; 16]), &config, at(0));
        assert_eq!(
            table.take(KEY, block(1, true, &[2; 16]), &config, at(0)),
            Outcome::Continue
        );
        assert_eq!(
            table.take(KEY, block(1, true, &[7; 16]), &config, at(0)),
            Outcome::Incomplete
        );
    }

    #[test]
    fn a_repeated_last_block_finds_its_exchange_and_then_its_answer() {
        let mut table = table();
        let config = small();
        table.take(KEY, block(0, true, &[1; 16]), &config, at(0));
        table.take(KEY, block(1, false, &[2; 3]), &config, at(0));
        table.handed_on(KEY, 77);
        assert_eq!(
            table.take(KEY, block(1, false, &[2; 3]), &config, at(1)),
            Outcome::Pending(77)
        );
        table.answered(KEY, 77, 68, b"tail");
        let answered = Outcome::Answered(68, b"tail".to_vec().into());
        assert_eq!(
            table.take(KEY, block(1, false, &[2; 3]), &config, at(2)),
            answered
        );
        assert_eq!(
            table.take(KEY, block(1, false, &[4; 3]), &config, at(3)),
            Outcome::Incomplete
        );
    }

    #[test]
    fn bodies_are_bounded_in_bytes_and_count_and_time() {
        let mut table = table();
        let config = small();
        let announced = Incoming {
            size1: Some(65),
            ..block(0, true, &[1; 16])
        };
        assert_eq!(table.take(KEY, announced, &config, at(0)), Outcome::TooLarge);
        for num in 0..4 {
            assert_eq!(
                table.take(KEY, block(num, true, &[1; 16]), &config, at(0)),
                Outcome::Continue
            );
        }
        assert_eq!(
            table.take((2, 2), block(0, true, &[1; 16]), &config, at(0)),
            Outcome::Continue
        );
        assert_eq!(
            table.take((3, 2), block(0, true, &[1; 16]), &config, at(9)),
            Outcome::Busy
        );
        assert_eq!(
            table.take((2, 2), block(1, true, &[1; 16]), &config, at(9)),
            Outcome::Continue
        );
        assert_eq!(
            table.take((2, 2), block(2, true, &[1; 16]), &config, at(9)),
            Outcome::Busy
        );
        assert_eq!(
            table.take((3, 2), block(0, true, &[1; 16]), &config, at(10)),
            Outcome::Continue
        );
        assert_eq!(
            table.take(KEY, block(4, true, &[1; 16]), &config, at(10)),
            Outcome::Incomplete
        );
        table.sweep(&config, at(257));
        assert_eq!((table.len(), table.bytes), (0, 0));
    }

    #[test]
    fn a_body_that_outgrows_the_bound_is_too_large() {
        let mut table = table();
        let config = small();
        for num in 0..4 {
            table.take(KEY, block(num, true, &[1; 16]), &config, at(0));
        }
        assert_eq!(
            table.take(KEY, block(4, false, &[1]), &config, at(0)),
            Outcome::TooLarge
        );
        assert_eq!((table.len(), table.bytes), (0, 0));
    }

    #[test]
    fn a_block_that_is_not_full_or_of_reserved_size_is_malformed() {
        let mut table = table();
        let config = small();
        assert_eq!(
            table.take(KEY, block(0, true, &[1; 15]), &config, at(0)),
            Outcome::Malformed
        );
        assert_eq!(
            table.take(KEY, block(0, false, &[1; 17]), &config, at(0)),
            Outcome::Malformed
        );
        let reserved = Incoming {
            block: Block::from_uint(7),
            payload: &[],
            size1: None,
        };
        assert_eq!(table.take(KEY, reserved, &config, at(0)), Outcome::Malformed);
    }
}
