//! Requests of peers: from block or datagram to the application, and its answer back (RFC 7252 5.2, RFC 7959 2).

use crate::assembly::{Incoming, Outcome};
use crate::block::{self, Block};
use crate::code::{Code, Kind, Token};
use crate::codec::Message;
use crate::dedup::Replay;
use crate::event::{Event, Exchange, Peer};
use crate::message::Request;
use crate::observed::Observer;
use crate::options::number;
use crate::receive::Received;
use crate::reliability::Backoff;
use crate::stack::Stack;
use crate::time::Instant;
use crate::timers::Owner;

/// A request that waits for the application, an answer that waits for its ACK, or an observation.
#[derive(Debug)]
pub(crate) struct Open<P> {
    pub(crate) peer: P,
    pub(crate) mid: u16,
    pub(crate) kind: Kind,
    pub(crate) token: Token,
    /// Hash of method, path and query; with Accept mixed in for `answer_key`.
    pub(crate) operation: u64,
    pub(crate) answer_key: u64,
    pub(crate) block2: Option<Block>,
    /// To be echoed in the answer to an assembled body.
    pub(crate) block1: Option<Block>,
    pub(crate) size2: bool,
    pub(crate) observe: Option<u32>,
    pub(crate) acknowledged: bool,
    pub(crate) state: State,
    pub(crate) sending: Option<Sending>,
    pub(crate) acknowledge_at: Option<Instant>,
    pub(crate) expires: Option<Instant>,
    pub(crate) armed: Option<Instant>,
}

#[derive(Debug)]
pub(crate) enum State {
    /// The application has the request.
    Waiting,
    /// A separate answer or a last notification waits for its ACK.
    Closing,
    Observing(Observer),
}

/// A confirmable message of ours that waits for its ACK.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) mid: u16,
    pub(crate) datagram: Vec<u8>,
    pub(crate) backoff: Backoff,
}

impl<P> Open<P> {
    /// Bytes of a body that go into one message: our block size, or a smaller one that was asked for.
    pub(crate) fn limit(&self, szx: u8) -> usize {
        block::size(self.block2.map_or(szx, |asked| asked.szx.min(szx)))
    }

    fn wake(&self) -> Option<Instant> {
        let sending = self.sending.as_ref().map(|sending| sending.backoff.at);
        [sending, self.acknowledge_at, self.expires]
            .into_iter()
            .flatten()
            .min()
    }
}

impl<P: Peer> Stack<P> {
    /// A request that nobody has answered yet.
    pub(crate) fn pass(&mut self, received: &Received<'_, P>, streamed: bool) {
        let Received {
            peer,
            message,
            datagram,
            now,
        } = *received;
        let operation = self.operation(message);
        let options = &message.options;
        let mut request = None;
        if let Some(block) = options.block1
            && !streamed
        {
            let incoming = Incoming {
                block,
                payload: message.payload,
                size1: options.size1,
            };
            match self
                .assemblies
                .take((peer, operation), incoming, &self.config, now)
            {
                Outcome::Complete(payload) => {
                    request = Some(Request {
                        payload,
                        ..Request::from_message(&head_of(message))
                    });
                }
                outcome => return self.answer_block(received, block, operation, outcome),
            }
        }
        if let Some(block) = options.block2.filter(|block| block.num > 0)
            && options.block1.is_none()
            && self.answer_kept(received, self.answer_key(operation, message), block)
        {
            return;
        }
        let assembled = request.is_some();
        let id = self.next_id();
        if self.events.len() >= self.config.max_events
            || self.exchanges.len() >= self.config.max_exchanges
            || !self.peers.join(peer, Owner::Exchange(id), now)
        {
            if assembled {
                self.assemblies.remove((peer, operation));
            }
            return self.refuse(received);
        }
        if assembled {
            self.assemblies.handed_on((peer, operation), id);
            self.schedule_sweep(now);
        }
        self.remember(
            (peer, message.mid),
            datagram,
            received.is_confirmable(),
            Replay::Silent,
            now,
        );
        self.open_exchange(id, received, operation, streamed);
        let request = request.unwrap_or_else(|| Request::from_message(message));
        self.events.push_back(Event::Request {
            exchange: Exchange(id),
            peer,
            request,
        });
    }

    fn open_exchange(&mut self, id: u64, received: &Received<'_, P>, operation: u64, streamed: bool) {
        let Received {
            peer, message, now, ..
        } = *received;
        let acknowledge_at = received
            .is_confirmable()
            .then_some(now + self.config.processing_delay);
        let open = Open {
            peer,
            mid: message.mid,
            kind: message.kind,
            token: message.token,
            operation,
            answer_key: self.answer_key(operation, message),
            block2: message.options.block2,
            block1: message.options.block1.filter(|_| !streamed),
            size2: message.options.size2.is_some(),
            observe: message.options.observe,
            acknowledged: false,
            state: State::Waiting,
            sending: None,
            acknowledge_at,
            expires: Some(now + self.times.exchange_lifetime),
            armed: None,
        };
        self.keep_exchange(id, Box::new(open));
    }

    /// Answers a Block1 block that does not complete its body.
    fn answer_block(&mut self, received: &Received<'_, P>, block: Block, operation: u64, outcome: Outcome) {
        let now = received.now;
        match outcome {
            Outcome::Continue => {
                self.schedule_sweep(now);
                let echo = Block {
                    szx: block.szx.min(self.szx),
                    ..block
                };
                self.answer_now(received, true, |reply| {
                    reply.code(Code::CONTINUE);
                    reply.block(number::BLOCK1, echo);
                });
            }
            Outcome::Incomplete => self.answer_now(received, true, |reply| {
                reply.code(Code::REQUEST_ENTITY_INCOMPLETE);
                reply.block(number::BLOCK1, block);
            }),
            Outcome::TooLarge => {
                let limit = u32::try_from(self.config.max_body).unwrap_or(u32::MAX);
                self.answer_now(received, true, |reply| {
                    reply.code(Code::REQUEST_ENTITY_TOO_LARGE);
                    reply.block(number::BLOCK1, block);
                    reply.uint(number::SIZE1, limit);
                });
            }
            Outcome::Busy => self.refuse(received),
            Outcome::Answered(code, tail) => self.answer_now(received, true, |reply| {
                reply.code(Code(code));
                reply.encoder.raw(&tail);
            }),
            Outcome::Pending(exchange) => self.take_over(exchange, received, operation),
            Outcome::Malformed | Outcome::Complete(_) => {
                self.answer_now(received, false, |reply| reply.code(Code::BAD_REQUEST));
            }
        }
    }

    /// The client sends its last block again under a new Message ID: the answer goes there.
    fn take_over(&mut self, id: u64, received: &Received<'_, P>, operation: u64) {
        let Received {
            peer,
            message,
            datagram,
            now,
        } = *received;
        let Some(mut open) = self.exchanges.remove(&id) else {
            self.assemblies.remove((peer, operation));
            return self.refuse(received);
        };
        open.mid = message.mid;
        open.kind = message.kind;
        open.token = message.token;
        open.acknowledged = false;
        open.acknowledge_at = received
            .is_confirmable()
            .then_some(now + self.config.processing_delay);
        self.remember(
            (peer, message.mid),
            datagram,
            received.is_confirmable(),
            Replay::Silent,
            now,
        );
        self.keep_exchange(id, open);
    }

    pub(crate) fn keep_exchange(&mut self, id: u64, mut open: Box<Open<P>>) {
        match open.wake() {
            Some(at) => self.timers.arm(Owner::Exchange(id), &mut open.armed, at),
            None => self.timers.disarm(Owner::Exchange(id), &mut open.armed),
        }
        self.exchanges.insert(id, open);
    }

    pub(crate) fn stop_sending(&mut self, open: &mut Open<P>) {
        if let Some(sending) = open.sending.take() {
            self.mids.remove(&(open.peer, sending.mid));
        }
    }

    /// Removes what refers to an exchange that has been taken out of the table.
    pub(crate) fn drop_exchange(&mut self, id: u64, mut open: Box<Open<P>>, now: Instant) {
        self.stop_sending(&mut open);
        self.timers.disarm(Owner::Exchange(id), &mut open.armed);
        if let State::Observing(observer) = &open.state {
            for mid in observer.recent() {
                if self.mids.get(&(open.peer, mid)) == Some(&Owner::Exchange(id)) {
                    self.mids.remove(&(open.peer, mid));
                }
            }
            if self.observers.get(&(open.peer, open.token)) == Some(&id) {
                self.observers.remove(&(open.peer, open.token));
            }
        }
        self.peers.leave(open.peer, Owner::Exchange(id), now);
    }

    /// Ends an exchange because its peer is gone, reset it, or did not acknowledge.
    pub(crate) fn lose_exchange(&mut self, id: u64, now: Instant) {
        let Some(open) = self.exchanges.remove(&id) else {
            return;
        };
        if matches!(open.state, State::Observing(_)) {
            self.events.push_back(Event::Cancelled {
                exchange: Exchange(id),
                peer: open.peer,
            });
        }
        self.drop_exchange(id, open, now);
    }

    pub(crate) fn exchange_acknowledged(&mut self, id: u64, mid: u16, now: Instant) {
        let Some(mut open) = self.exchanges.remove(&id) else {
            return;
        };
        if open.sending.as_ref().is_some_and(|sending| sending.mid == mid) {
            self.stop_sending(&mut open);
            match &open.state {
                State::Closing => return self.drop_exchange(id, open, now),
                State::Observing(_) => self.notify_pending(id, &mut open, now),
                State::Waiting => {}
            }
        }
        self.keep_exchange(id, open);
    }

    pub(crate) fn exchange_timer(&mut self, id: u64, now: Instant) {
        let Some(mut open) = self.exchanges.remove(&id) else {
            return;
        };
        open.armed = None;
        if open.expires.is_some_and(|at| at <= now) {
            return self.drop_exchange(id, open, now);
        }
        if open.acknowledge_at.is_some_and(|at| at <= now) {
            open.acknowledge_at = None;
            open.acknowledged = true;
            self.out.empty(open.peer, Kind::Acknowledgement, open.mid);
            self.dedup.answer(open.peer, open.mid, Replay::Acknowledge);
        }
        if let Some(sending) = open.sending.as_mut().filter(|sending| sending.backoff.at <= now) {
            if !sending.backoff.again(&self.times, now) {
                self.exchanges.insert(id, open);
                return self.lose_exchange(id, now);
            }
            self.counters.retransmissions += 1;
            if !self.replace_notification(id, &mut open, now)
                && let Some(sending) = &open.sending
            {
                self.out.push(open.peer, &sending.datagram);
            }
        }
        self.keep_exchange(id, open);
    }
}

/// The message without its payload, which the assembled body replaces.
fn head_of<'a>(message: &Message<'a>) -> Message<'a> {
    Message {
        payload: &[],
        ..*message
    }
}
