//! Flights of ours: fragments, records, datagrams, and the timer (RFC 6347 4.2.3, 4.2.4).

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Config;
use crate::outbox::Outbox;
use crate::reassembly;
use crate::record::{self, Protection, put_header};
use crate::wire::{VERSION, content, handshake};
use coap::Instant;

/// A fragment of fewer bytes goes into a datagram of its own.
const MIN_FRAGMENT: usize = 32;

#[derive(Clone, Debug)]
enum Outgoing {
    Message { kind: u8, seq: u16, body: Vec<u8> },
    ChangeCipherSpec,
}

/// Our latest flight, and the numbers that outlast it.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    messages: Vec<Outgoing>,
    /// Number of our next message.
    pub(crate) next_seq: u16,
    /// Number of our next record of epoch 0.
    pub(crate) record_seq: u64,
    wait: Duration,
    /// When it is sent again; `None` when no answer is expected.
    pub(crate) deadline: Option<Instant>,
    sent_at: Instant,
    resends: u32,
    repeats: u32,
    mtu: usize,
    /// Content of a record that the peer takes.
    pub(crate) limit: usize,
}

impl Flight {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            messages: Vec::new(),
            next_seq: 0,
            record_seq: 0,
            wait: config.first_wait(),
            deadline: None,
            sent_at: Instant::ZERO,
            resends: 0,
            repeats: 0,
            mtu: config.payload(),
            limit: crate::wire::MAX_CONTENT,
        }
    }

    /// Starts another flight: the peer has answered the one before.
    pub(crate) fn begin(&mut self, config: &Config) {
        self.messages.clear();
        self.wait = config.first_wait();
        self.deadline = None;
        self.resends = 0;
        self.repeats = 0;
    }

    /// Appends a message; its number.
    pub(crate) fn push(&mut self, kind: u8, body: Vec<u8>) -> u16 {
        let seq = self.next_seq;
        self.next_seq = self.next_seq.wrapping_add(1);
        self.messages.push(Outgoing::Message { kind, seq, body });
        seq
    }

    pub(crate) fn push_change_cipher_spec(&mut self) {
        self.messages.push(Outgoing::ChangeCipherSpec);
    }

    /// It has a `ChangeCipherSpec`: what follows is encrypted.
    pub(crate) fn is_changed(&self) -> bool {
        self.messages
            .iter()
            .any(|outgoing| matches!(outgoing, Outgoing::ChangeCipherSpec))
    }

    /// Sends it for the first time; the timer runs when an answer is expected.
    pub(crate) fn send(
        &mut self,
        keys: Option<&mut Protection>,
        address: SocketAddr,
        out: &mut Outbox,
        now: Instant,
        answer_expected: bool,
    ) {
        self.transmit(keys, address, out);
        self.sent_at = now;
        self.deadline = answer_expected.then_some(now + self.wait);
    }

    /// The timer has expired; false when the flight has been sent often enough.
    pub(crate) fn resend(
        &mut self,
        keys: Option<&mut Protection>,
        address: SocketAddr,
        out: &mut Outbox,
        now: Instant,
        config: &Config,
    ) -> bool {
        if self.resends >= config.max_resends {
            return false;
        }
        self.resends += 1;
        if self.resends.is_multiple_of(2) {
            // Repeated loss may come from the size (RFC 6347 4.1.1.1).
            self.mtu = (self.mtu / 2).max(256).min(self.mtu);
        }
        self.wait = (self.wait * 2).min(config.max_timeout.max(config.first_wait()));
        self.transmit(keys, address, out);
        self.sent_at = now;
        self.deadline = Some(now + self.wait);
        true
    }

    /// The peer has repeated the last message of its flight: it lacks ours.
    pub(crate) fn repeat(
        &mut self,
        keys: Option<&mut Protection>,
        address: SocketAddr,
        out: &mut Outbox,
        now: Instant,
        config: &Config,
    ) {
        let soon = now.since(self.sent_at) < config.resend_gap;
        if self.messages.is_empty() || soon || self.repeats >= config.max_resends {
            return;
        }
        self.repeats += 1;
        self.transmit(keys, address, out);
        self.sent_at = now;
        self.deadline = self.deadline.map(|_| now + self.wait);
    }

    /// Frames the messages anew: same message numbers, new record numbers, encrypted again.
    fn transmit(&mut self, mut keys: Option<&mut Protection>, address: SocketAddr, out: &mut Outbox) {
        let (mut start, _) = out.open();
        for outgoing in &self.messages {
            let Outgoing::Message { kind, seq, body } = outgoing else {
                let sequence = self.record_seq;
                self.record_seq += 1;
                make_room(out, &mut start, address, self.mtu, record::HEADER + 1);
                let (_, buf) = out.open();
                put_header(buf, content::CHANGE_CIPHER_SPEC, VERSION, sequence, 1);
                buf.push(1);
                continue;
            };
            let mut keys = keys.as_deref_mut().filter(|_| *kind == handshake::FINISHED);
            let overhead = keys.as_ref().map_or(record::HEADER, |keys| keys.overhead()) + reassembly::HEADER;
            let mut offset = 0;
            loop {
                let rest = body.get(offset..).unwrap_or_default();
                make_room(
                    out,
                    &mut start,
                    address,
                    self.mtu,
                    overhead + rest.len().min(MIN_FRAGMENT),
                );
                let room = self.mtu.saturating_sub(out.written(start) + overhead).max(1);
                let most = self.limit.saturating_sub(reassembly::HEADER).max(1);
                let part = rest.get(..rest.len().min(room).min(most)).unwrap_or_default();
                let (_, buf) = out.open();
                let header = reassembly::header(*kind, body.len(), *seq, offset, part.len());
                if let Some(keys) = keys.as_deref_mut() {
                    keys.seal(content::HANDSHAKE, &[&header, part], buf);
                } else {
                    let sequence = self.record_seq;
                    self.record_seq += 1;
                    let length = reassembly::HEADER + part.len();
                    put_header(buf, content::HANDSHAKE, VERSION, sequence, length);
                    buf.extend_from_slice(&header);
                    buf.extend_from_slice(part);
                }
                offset += part.len();
                if offset >= body.len() {
                    break;
                }
            }
        }
        out.commit(address, start);
    }
}

/// Ends the datagram when `bytes` more would make it too long.
fn make_room(out: &mut Outbox, start: &mut usize, address: SocketAddr, mtu: usize, bytes: usize) {
    let written = out.written(*start);
    if written > 0 && written + bytes > mtu {
        out.commit(address, *start);
        *start = out.open().0;
    }
}
