//! Handshake messages out of fragments (RFC 6347 4.2.2, 4.2.3), in order and within bounds.
//!
//! A fragment must agree with the others of its message in type, length and epoch, and byte for byte where it
//! overlaps them; otherwise it is dropped.

use std::collections::VecDeque;

use crate::alert::Alert;
use crate::wire::{Reader, handshake, u24};

/// Header of a handshake message.
pub(crate) const HEADER: usize = 12;
/// A flight has no more messages; more is not kept ahead.
const MAX_AHEAD: usize = 6;
const MAX_FRAGMENTS: usize = 64;

/// A fragment as it stands in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    pub(crate) kind: u8,
    /// Length of the whole message.
    pub(crate) total: usize,
    pub(crate) seq: u16,
    pub(crate) offset: usize,
    pub(crate) body: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// Takes one off the content of a record.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Alert> {
        let kind = reader.u8()?;
        let total = reader.u24()?;
        let seq = reader.u16()?;
        let offset = reader.u24()?;
        let body = reader.vec24()?;
        if offset + body.len() > total {
            return Err(Alert::DecodeError);
        }
        Ok(Self {
            kind,
            total,
            seq,
            offset,
            body,
        })
    }

    /// The message's end is in it.
    pub(crate) fn is_last(&self) -> bool {
        self.offset + self.body.len() == self.total
    }
}

/// The header of a fragment.
#[allow(clippy::many_single_char_names)]
pub(crate) fn header(kind: u8, total: usize, seq: u16, offset: usize, length: usize) -> [u8; HEADER] {
    let [[a, b, c], [f, g, h], [i, j, k]] = [total, offset, length].map(u24);
    let [d, e] = seq.to_be_bytes();
    [kind, a, b, c, d, e, f, g, h, i, j, k]
}

/// Longest body that is taken for a type; `None` for a type that does not exist.
fn max_length(kind: u8) -> Option<usize> {
    Some(match kind {
        handshake::HELLO_REQUEST | handshake::SERVER_HELLO_DONE => 0,
        handshake::CLIENT_HELLO | handshake::CERTIFICATE_REQUEST => 2048,
        handshake::SERVER_HELLO | handshake::SERVER_KEY_EXCHANGE => 1024,
        handshake::HELLO_VERIFY_REQUEST => 258,
        handshake::NEW_SESSION_TICKET => 4096,
        handshake::CERTIFICATE => 8192,
        handshake::CERTIFICATE_VERIFY => 128,
        handshake::CLIENT_KEY_EXCHANGE => 256,
        handshake::FINISHED => 12,
        _ => return None,
    })
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub(crate) kind: u8,
    pub(crate) seq: u16,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Partial {
    kind: u8,
    total: usize,
    body: Vec<u8>,
    /// What has come, in order and apart from one another.
    ranges: Vec<(usize, usize)>,
    fragments: usize,
}

impl Partial {
    fn is_complete(&self) -> bool {
        self.total == 0 || self.ranges.as_slice() == [(0, self.total)]
    }

    /// False when the fragment contradicts what has come.
    fn add(&mut self, fragment: &Fragment<'_>) -> bool {
        let (start, end) = (fragment.offset, fragment.offset + fragment.body.len());
        let agrees = self.ranges.iter().all(|&(from, to)| {
            let (low, high) = (from.max(start), to.min(end));
            low >= high || self.body.get(low..high) == fragment.body.get(low - start..high - start)
        });
        if !agrees || self.fragments >= MAX_FRAGMENTS {
            return false;
        }
        self.fragments += 1;
        if start == end {
            return true;
        }
        if self.body.len() < end {
            self.body.resize(end, 0);
        }
        if let Some(to) = self.body.get_mut(start..end) {
            to.copy_from_slice(fragment.body);
        }
        let (mut low, mut high) = (start, end);
        self.ranges.retain(|&(from, to)| {
            let apart = to < low || from > high;
            if !apart {
                (low, high) = (low.min(from), high.max(to));
            }
            apart
        });
        let at = self.ranges.partition_point(|&(from, _)| from < low);
        self.ranges.insert(at, (low, high));
        true
    }
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Kept, or completed a message.
    New,
    /// Of a message before the one expected.
    Old,
    /// Contradictory, too far ahead, or above a bound.
    Dropped,
}

/// Messages of one peer in one handshake.
#[derive(Clone, Debug, Default)]
pub struct Reassembly {
    next: u16,
    ahead: VecDeque<Option<Partial>>,
    bytes: usize,
}

impl Reassembly {
    /// Expects message number `next` first.
    #[must_use]
    pub fn new(next: u16) -> Self {
        Self {
            next,
            ahead: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn next(&self) -> u16 {
        self.next
    }

    /// Takes a fragment; `budget` bytes may be in memory.
    pub fn insert(&mut self, fragment: &Fragment<'_>, budget: usize) -> Taken {
        let Some(at) = fragment.seq.checked_sub(self.next) else {
            return Taken::Old;
        };
        let at = usize::from(at);
        let fits = max_length(fragment.kind).is_some_and(|max| fragment.total <= max);
        if at >= MAX_AHEAD || !fits {
            return Taken::Dropped;
        }
        while self.ahead.len() <= at {
            self.ahead.push_back(None);
        }
        let Some(slot) = self.ahead.get_mut(at) else {
            return Taken::Dropped;
        };
        let before = slot.as_ref().map_or(0, |partial| partial.body.len());
        let end = fragment.offset + fragment.body.len();
        if self.bytes - before + before.max(end) > budget {
            return Taken::Dropped;
        }
        let partial = slot.get_or_insert_with(|| Partial {
            kind: fragment.kind,
            total: fragment.total,
            body: Vec::new(),
            ranges: Vec::new(),
            fragments: 0,
        });
        let same = partial.kind == fragment.kind && partial.total == fragment.total;
        if !same || !partial.add(fragment) {
            return Taken::Dropped;
        }
        self.bytes = self.bytes - before + partial.body.len();
        Taken::New
    }

    /// The next message when this fragment is all of it, as most are, and nothing of it is in memory.
    pub(crate) fn whole(&mut self, fragment: &Fragment<'_>, budget: usize) -> Option<Message> {
        let Fragment { kind, seq, total, .. } = *fragment;
        let fits = max_length(kind).is_some_and(|max| total <= max) && self.bytes + total <= budget;
        if seq != self.next || fragment.body.len() != total || !fits || !self.ahead.is_empty() {
            return None;
        }
        self.next = self.next.checked_add(1)?;
        Some(Message {
            kind,
            seq,
            body: fragment.body.to_vec(),
        })
    }

    /// The next message when it is complete.
    pub fn pop(&mut self) -> Option<Message> {
        let complete = self.ahead.front()?.as_ref()?.is_complete();
        let partial = complete.then(|| self.ahead.pop_front())??;
        let partial = partial?;
        let seq = self.next;
        self.next = self.next.checked_add(1)?;
        self.bytes -= partial.body.len();
        Some(Message {
            kind: partial.kind,
            seq,
            body: partial.body,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fragment(body: &[u8], offset: usize, length: usize) -> Fragment<'_> {
        Fragment {
            kind: handshake::CERTIFICATE,
            total: body.len(),
            seq: 3,
            offset,
            body: &body[offset..offset + length],
        }
    }

    proptest! {
        #[test]
        fn any_cover_of_a_message_gives_it_whole(
            body in prop::collection::vec(any::<u8>(), 1..300),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..80), 0..40),
        ) {
            let mut reassembly = Reassembly::new(3);
            let mut covered = vec![false; body.len()];
            for (at, length) in cuts {
                let offset = at.index(body.len());
                let length = length.min(body.len() - offset);
                prop_assert_eq!(reassembly.insert(&fragment(&body, offset, length), 1000), Taken::New);
                covered[offset..offset + length].fill(true);
                prop_assert!(reassembly.bytes() <= body.len());
            }
            let whole = covered.iter().all(|byte| *byte);
            let message = reassembly.pop();
            prop_assert_eq!(message.is_some(), whole);
            if let Some(message) = message {
                prop_assert_eq!(message.body, body);
                prop_assert_eq!(reassembly.bytes(), 0);
            }
        }
    }

    #[test]
    fn a_message_in_one_piece_is_taken_at_once_unless_some_of_it_is_kept() {
        let body = b"0123456789".as_slice();
        let mut reassembly = Reassembly::new(3);
        assert_eq!(reassembly.whole(&fragment(body, 0, 9), 100), None);
        assert_eq!(reassembly.whole(&fragment(body, 0, 10), 9), None);
        let message = reassembly.whole(&fragment(body, 0, 10), 10).expect("whole");
        assert_eq!((message.seq, message.body.as_slice()), (3, body));
        assert_eq!(reassembly.whole(&fragment(body, 0, 10), 100), None);
        assert_eq!(reassembly.insert(&fragment(body, 0, 10), 100), Taken::Old);
        let mut reassembly = Reassembly::new(3);
        assert_eq!(reassembly.insert(&fragment(body, 0, 4), 100), Taken::New);
        assert_eq!(reassembly.whole(&fragment(body, 0, 10), 100), None);
    }

    #[test]
    fn overlapping_or_zero_length_fragments_are_consistent_or_dropped() {
        let body = b"0123456789".as_slice();
        let mut reassembly = Reassembly::new(3);
        assert_eq!(reassembly.insert(&fragment(body, 2, 4), 100), Taken::New);
        assert_eq!(reassembly.insert(&fragment(body, 9, 0), 100), Taken::New);
        assert_eq!(
            reassembly.insert(&fragment(b"abcdefghij", 4, 4), 100),
            Taken::Dropped
        );
        assert_eq!(reassembly.insert(&fragment(body, 0, 3), 100), Taken::New);
        assert_eq!(reassembly.insert(&fragment(body, 5, 5), 100), Taken::New);
        assert_eq!(reassembly.pop().expect("whole").body, body);
        assert_eq!(reassembly.insert(&fragment(body, 0, 3), 100), Taken::Old);
    }

    #[test]
    fn total_length_or_type_differing_between_fragments_is_dropped() {
        let mut reassembly = Reassembly::new(3);
        assert_eq!(reassembly.insert(&fragment(b"0123456789", 0, 4), 100), Taken::New);
        assert_eq!(
            reassembly.insert(&fragment(b"0123456789a", 4, 7), 100),
            Taken::Dropped
        );
        let mut other = fragment(b"0123456789", 4, 6);
        other.kind = handshake::CLIENT_HELLO;
        assert_eq!(reassembly.insert(&other, 100), Taken::Dropped);
    }

    #[test]
    fn a_huge_announced_message_is_refused_and_memory_stays_in_its_budget() {
        let mut reassembly = Reassembly::new(0);
        let mut huge = fragment(b"0123456789", 0, 4);
        huge.total = 1 << 20;
        huge.seq = 0;
        assert_eq!(reassembly.insert(&huge, 1 << 24), Taken::Dropped);
        let body = [7; 8000];
        for seq in 0..20 {
            let mut part = fragment(&body, 0, 8000);
            part.seq = seq;
            let expected = if seq == 0 { Taken::New } else { Taken::Dropped };
            assert_eq!(reassembly.insert(&part, 12_000), expected);
        }
        assert_eq!(reassembly.bytes(), 8000);
    }

    #[test]
    fn more_than_64_fragments_of_a_message_are_not_taken() {
        let body = [7; 200];
        let mut reassembly = Reassembly::new(3);
        for at in 0..64 {
            assert_eq!(reassembly.insert(&fragment(&body, at, 1), 1000), Taken::New);
        }
        assert_eq!(reassembly.insert(&fragment(&body, 64, 1), 1000), Taken::Dropped);
    }
}
