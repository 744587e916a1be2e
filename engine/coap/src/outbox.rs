//! Datagrams that wait to be sent, written one behind the other into a buffer that is used again and again.

use std::collections::VecDeque;
use std::ops::Range;

use crate::code::{Code, Kind, Token};
use crate::codec::Encoder;
use crate::event::Transmit;

#[derive(Debug)]
pub(crate) struct Outbox<P> {
    buf: Vec<u8>,
    queue: VecDeque<(P, Range<usize>)>,
    max: usize,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
}

/// A drained buffer above this size is given back to the allocator.
const KEEP_CAPACITY: usize = 1 << 20;

impl<P: Copy> Outbox<P> {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            buf: Vec::new(),
            queue: VecDeque::new(),
            max,
            sent: 0,
            dropped: 0,
        }
    }

    /// The end of the buffer, to write a datagram there; then `commit` or `abandon` with the length given.
    pub(crate) fn open(&mut self) -> (usize, &mut Vec<u8>) {
        (self.buf.len(), &mut self.buf)
    }

    pub(crate) fn abandon(&mut self, start: usize) {
        self.buf.truncate(start);
    }

    pub(crate) fn written(&self, start: usize) -> &[u8] {
        self.buf.get(start..).unwrap_or_default()
    }

    /// Replaces the Message ID of the datagram being written.
    pub(crate) fn set_mid(&mut self, start: usize, mid: u16) {
        if let Some(bytes) = self.buf.get_mut(start + 2..start + 4) {
            bytes.copy_from_slice(&mid.to_be_bytes());
        }
    }

    pub(crate) fn commit(&mut self, peer: P, start: usize) {
        if self.buf.len() > self.max {
            self.buf.truncate(start);
            self.dropped += 1;
        } else {
            self.queue.push_back((peer, start..self.buf.len()));
        }
    }

    pub(crate) fn push(&mut self, peer: P, datagram: &[u8]) {
        let (start, buf) = self.open();
        buf.extend_from_slice(datagram);
        self.commit(peer, start);
    }

    /// An empty message: ACK or RST (RFC 7252 4.2).
    pub(crate) fn empty(&mut self, peer: P, kind: Kind, mid: u16) {
        let (start, buf) = self.open();
        Encoder::new(buf, kind, Code::EMPTY, mid, Token::EMPTY);
        self.commit(peer, start);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Transmit<'_, P>> {
        self.queue.iter().map(|(peer, range)| self.transmit(*peer, range))
    }

    fn transmit(&self, peer: P, range: &Range<usize>) -> Transmit<'_, P> {
        Transmit {
            peer,
            datagram: self.buf.get(range.clone()).unwrap_or_default(),
        }
    }

    pub(crate) fn advance(&mut self, count: usize) {
        let count = count.min(self.queue.len());
        self.queue.drain(..count);
        self.sent += count as u64;
        let Some((_, first)) = self.queue.front() else {
            self.buf.clear();
            if self.buf.capacity() > KEEP_CAPACITY {
                self.buf.shrink_to(KEEP_CAPACITY);
            }
            return;
        };
        let start = first.start;
        if start > KEEP_CAPACITY.min(self.max) / 2 && start > self.buf.len() / 2 {
            self.buf.drain(..start);
            for (_, range) in &mut self.queue {
                *range = range.start - start..range.end - start;
            }
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Transmit<'_, P>> {
        // A buffer whose last datagram has been lent out is emptied on the next call.
        self.advance(0);
        let (peer, range) = self.queue.pop_front()?;
        self.sent += 1;
        Some(self.transmit(peer, &range))
    }
}
