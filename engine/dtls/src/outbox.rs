//! Datagrams that wait to be sent, written one behind the other into a buffer that is used again and again.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;

/// A datagram to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// Where to.
    pub address: SocketAddr,
    /// What.
    pub datagram: &'a [u8],
}

/// A drained buffer above this size is given back to the allocator.
const KEEP_CAPACITY: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Outbox {
    buf: Vec<u8>,
    queue: VecDeque<(SocketAddr, Range<usize>)>,
    max: usize,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
}

impl Outbox {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            buf: Vec::new(),
            queue: VecDeque::new(),
            max,
            sent: 0,
            dropped: 0,
        }
    }

    /// Gives the memory back if nothing waits.
    pub(crate) fn shrink(&mut self) {
        if self.queue.is_empty() {
            (self.buf, self.queue) = (Vec::new(), VecDeque::new());
        }
    }

    /// The end of the buffer, to write a datagram there; then `commit` or `abandon` with the position given.
    pub(crate) fn open(&mut self) -> (usize, &mut Vec<u8>) {
        (self.buf.len(), &mut self.buf)
    }

    /// Bytes of the datagram being written.
    pub(crate) fn written(&self, start: usize) -> usize {
        self.buf.len() - start
    }

    pub(crate) fn abandon(&mut self, start: usize) {
        self.buf.truncate(start);
    }

    pub(crate) fn commit(&mut self, address: SocketAddr, start: usize) {
        if self.buf.len() > self.max {
            self.buf.truncate(start);
            self.dropped += 1;
        } else if self.buf.len() > start {
            self.queue.push_back((address, start..self.buf.len()));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Transmit<'_>> {
        self.queue
            .iter()
            .map(|(address, range)| self.transmit(*address, range))
    }

    fn transmit(&self, address: SocketAddr, range: &Range<usize>) -> Transmit<'_> {
        Transmit {
            address,
            datagram: self.buf.get(range.clone()).unwrap_or_default(),
        }
    }

    pub(crate) fn advance(&mut self, count: usize) {
        let count = count.min(self.queue.len());
        self.queue.drain(..count);
        self.sent += count as u64;
        let Some((_, first)) = self.queue.front() else {
            self.buf.clear();
            self.buf.shrink_to(KEEP_CAPACITY);
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

    pub(crate) fn pop(&mut self) -> Option<Transmit<'_>> {
        // A buffer whose last datagram has been lent out is emptied on the next call.
        self.advance(0);
        let (address, range) = self.queue.pop_front()?;
        self.sent += 1;
        Some(self.transmit(address, &range))
    }
}
