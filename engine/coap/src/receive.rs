//! What a datagram is and who gets it (RFC 7252 4.2, 4.3, 5.4.1).

use std::hash::{BuildHasher, Hasher};

use crate::block::RESERVED_SZX;
use crate::code::{Code, Kind};
use crate::codec::{Message, ParseError};
use crate::dedup::Replay;
use crate::event::Peer;
use crate::local::{Local, Reply, Verdict};
use crate::options::number;
use crate::stack::Stack;
use crate::time::Instant;
use crate::timers::Owner;

/// A message with its circumstances.
#[derive(Clone, Copy)]
pub(crate) struct Received<'a, P> {
    pub(crate) peer: P,
    pub(crate) message: &'a Message<'a>,
    pub(crate) datagram: &'a [u8],
    pub(crate) now: Instant,
}

impl<P> Received<'_, P> {
    pub(crate) fn is_confirmable(&self) -> bool {
        self.message.kind == Kind::Confirmable
    }

    /// The type of an answer given at once (RFC 7252 5.2.1, 5.2.3).
    pub(crate) fn answer_kind(&self) -> Kind {
        if self.is_confirmable() {
            Kind::Acknowledgement
        } else {
            Kind::NonConfirmable
        }
    }
}

impl<P: Peer> Stack<P> {
    /// Takes in one datagram. `local` is asked about each new request before anything is stored.
    pub fn receive_datagram(&mut self, peer: P, datagram: &[u8], now: Instant, local: &mut impl Local<P>) {
        self.counters.received += 1;
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(error) => {
                self.counters.malformed += 1;
                if let ParseError::Malformed {
                    kind: Kind::Confirmable,
                    mid,
                } = error
                {
                    self.out.empty(peer, Kind::Reset, mid);
                }
                return;
            }
        };
        let received = Received {
            peer,
            message: &message,
            datagram,
            now,
        };
        match message.kind {
            Kind::Acknowledgement => self.on_acknowledgement(&received),
            Kind::Reset if message.code == Code::EMPTY => self.on_reset(&received),
            Kind::Reset => self.counters.malformed += 1,
            Kind::Confirmable | Kind::NonConfirmable => self.on_message(&received, local),
        }
    }

    fn on_message(&mut self, received: &Received<'_, P>, local: &mut impl Local<P>) {
        let Received {
            peer,
            message,
            datagram,
            now,
        } = *received;
        if message.code.is_request() {
            if !self.replayed(peer, message.mid, datagram, now) {
                self.on_request(received, local);
            }
        } else if message.code.is_response() {
            if !self.replayed(peer, message.mid, datagram, now) {
                self.on_separate(received);
            }
        } else {
            // A ping (RFC 7252 4.3) is an empty CON; codes of the reserved classes are rejected the same way.
            if message.code != Code::EMPTY {
                self.counters.malformed += 1;
            }
            self.reject(received);
        }
    }

    /// Answers a duplicate; false when the message is new.
    fn replayed(&mut self, peer: P, mid: u16, datagram: &[u8], now: Instant) -> bool {
        match self.dedup.find(peer, mid, datagram, now) {
            None => return false,
            Some(Replay::Silent) => {}
            Some(Replay::Acknowledge) => self.out.empty(peer, Kind::Acknowledgement, mid),
            Some(Replay::Datagram(bytes)) => self.out.push(peer, bytes),
        }
        self.counters.duplicates += 1;
        true
    }

    /// RST for a CON, silence for a NON (RFC 7252 4.2, 4.3).
    pub(crate) fn reject(&mut self, received: &Received<'_, P>) {
        if received.is_confirmable() {
            self.out.empty(received.peer, Kind::Reset, received.message.mid);
        }
    }

    fn on_acknowledgement(&mut self, received: &Received<'_, P>) {
        let Received {
            peer, message, now, ..
        } = *received;
        match self.mids.get(&(peer, message.mid)).copied() {
            Some(Owner::Call(id)) if message.code == Code::EMPTY => self.call_acknowledged(id, now),
            Some(Owner::Call(id)) if message.code.is_response() => self.call_answered(id, received),
            Some(Owner::Exchange(id)) if message.code == Code::EMPTY => {
                self.exchange_acknowledged(id, message.mid, now);
            }
            _ => {}
        }
    }

    fn on_reset(&mut self, received: &Received<'_, P>) {
        let Received {
            peer, message, now, ..
        } = *received;
        match self.mids.get(&(peer, message.mid)).copied() {
            Some(Owner::Call(id)) => self.call_reset(id, now),
            Some(Owner::Exchange(id)) => self.lose_exchange(id, now),
            None => {}
        }
    }

    /// A response that is no ACK: separate, to a NON request, or a notification.
    fn on_separate(&mut self, received: &Received<'_, P>) {
        let Received { peer, message, .. } = *received;
        match self.tokens.get(&(peer, message.token)).copied() {
            Some(id) => self.call_answered(id, received),
            // Also for a NON: a RST is what ends a forgotten observation (RFC 7641 3.6).
            None => self.out.empty(peer, Kind::Reset, message.mid),
        }
    }

    fn on_request(&mut self, received: &Received<'_, P>, local: &mut impl Local<P>) {
        let options = &received.message.options;
        if let Some(unknown) = options.unknown_critical {
            // A NON with it is rejected, which may be silence (RFC 7252 5.4.1).
            if received.is_confirmable() {
                self.answer_now(received, false, |reply| {
                    reply.code(Code::BAD_OPTION);
                    reply.payload(format!("option {unknown} is not understood").as_bytes());
                });
            }
            return;
        }
        let refusal = if options.proxied {
            Some(Code::PROXYING_NOT_SUPPORTED)
        } else if received.message.code > Code::IPATCH {
            Some(Code::METHOD_NOT_ALLOWED)
        } else if [options.block1, options.block2]
            .iter()
            .flatten()
            .any(|block| block.szx == RESERVED_SZX)
        {
            Some(Code::BAD_REQUEST)
        } else {
            None
        };
        if let Some(code) = refusal {
            self.answer_now(received, false, |reply| reply.code(code));
            return;
        }
        if options.observe == Some(1) {
            self.deregistered(received);
        }
        self.ask(received, local);
    }

    fn ask(&mut self, received: &Received<'_, P>, local: &mut impl Local<P>) {
        let message = received.message;
        let (start, buf) = self.out.open();
        let mut reply = Reply::new(buf, received.answer_kind(), message.mid, message.token);
        let verdict = local.request(received.peer, message, &mut reply);
        let broken = reply.encoder.is_broken();
        match verdict {
            Verdict::Answered | Verdict::AnsweredOnce => {
                self.counters.local += 1;
                self.close_answer(received, start, broken, verdict == Verdict::AnsweredOnce);
            }
            Verdict::Drop => self.out.abandon(start),
            Verdict::Pass | Verdict::PassStreamed => {
                self.out.abandon(start);
                self.pass(received, verdict == Verdict::PassStreamed);
            }
        }
    }

    /// Answers at once, without an exchange.
    pub(crate) fn answer_now(
        &mut self,
        received: &Received<'_, P>,
        remember: bool,
        write: impl FnOnce(&mut Reply<'_>),
    ) {
        let message = received.message;
        let (start, buf) = self.out.open();
        let mut reply = Reply::new(buf, received.answer_kind(), message.mid, message.token);
        write(&mut reply);
        let broken = reply.encoder.is_broken();
        self.close_answer(received, start, broken, remember);
    }

    fn close_answer(&mut self, received: &Received<'_, P>, start: usize, broken: bool, remember: bool) {
        let Received {
            peer,
            message,
            datagram,
            now,
        } = *received;
        if broken {
            self.out.abandon(start);
            let (_, buf) = self.out.open();
            Reply::new(buf, received.answer_kind(), message.mid, message.token);
        }
        if !received.is_confirmable() {
            let mid = self.mid(peer, now);
            self.out.set_mid(start, mid);
        }
        if remember {
            let replay = if received.is_confirmable() {
                Replay::Datagram(self.out.written(start).into())
            } else {
                Replay::Silent
            };
            self.remember(
                (peer, message.mid),
                datagram,
                received.is_confirmable(),
                replay,
                now,
            );
        }
        self.out.commit(peer, start);
    }

    /// 5.03 with Max-Age (RFC 7252 5.9.3.4): some bound is reached.
    pub(crate) fn refuse(&mut self, received: &Received<'_, P>) {
        self.counters.refused += 1;
        let max_age = self.config.busy_max_age;
        self.answer_now(received, false, |reply| reply.busy(max_age));
    }

    /// What names a block-wise operation besides the peer: method, path and query (RFC 7959 2.5).
    pub(crate) fn operation(&self, message: &Message<'_>) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u8(message.code.0);
        for (number, value) in &message.options {
            if matches!(number, number::URI_PATH | number::URI_QUERY) {
                hasher.write_u16(number);
                hasher.write(value);
            }
        }
        hasher.finish()
    }
}
