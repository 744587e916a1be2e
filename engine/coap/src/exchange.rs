//! Requests of peers: from block or datagram to the application, and its answer back (RFC 7252 5.2, RFC 7959 2).

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use crate::answers::Kept;
use crate::assembly::{Incoming, Outcome};
use crate::block::{self, Block};
use crate::code::{Code, Kind, Token};
use crate::codec::{Encoder, Message};
use crate::dedup::Replay;
use crate::event::{Event, Exchange, Peer, UnknownExchange};
use crate::message::{Request, Response};
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
    mid: u16,
    kind: Kind,
    pub(crate) token: Token,
    /// Hash of method, path and query; with Accept mixed in for `answer_key`.
    operation: u64,
    answer_key: u64,
    block2: Option<Block>,
    /// To be echoed in the answer to an assembled body.
    block1: Option<Block>,
    size2: bool,
    observe: Option<u32>,
    acknowledged: bool,
    pub(crate) state: State,
    pub(crate) sending: Option<Sending>,
    acknowledge_at: Option<Instant>,
    expires: Option<Instant>,
    armed: Option<Instant>,
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
    datagram: Vec<u8>,
    pub(crate) backoff: Backoff,
}

impl<P> Open<P> {
    fn wake(&self) -> Option<Instant> {
        let sending = self.sending.as_ref().map(|sending| sending.backoff.at);
        [sending, self.acknowledge_at, self.expires]
            .into_iter()
            .flatten()
            .min()
    }
}

/// The part of a response that goes into one message.
struct Part<'a> {
    head: &'a Response,
    etag: Option<&'a [u8]>,
    observe: Option<u32>,
    block1: Option<Block>,
    block2: Option<Block>,
    size2: Option<u32>,
    payload: &'a [u8],
}

impl Part<'_> {
    fn write(&self, encoder: &mut Encoder<'_>) {
        let head = self.head;
        encoder.code(head.code);
        if let Some(etag) = self.etag {
            encoder.option(number::ETAG, etag);
        }
        encoder.maybe(number::OBSERVE, self.observe);
        encoder.each(number::LOCATION_PATH, &head.location_path);
        encoder.maybe(number::CONTENT_FORMAT, head.content_format);
        encoder.maybe(number::MAX_AGE, head.max_age);
        encoder.each(number::LOCATION_QUERY, &head.location_query);
        encoder.maybe(number::BLOCK2, self.block2.map(Block::to_uint));
        encoder.maybe(number::BLOCK1, self.block1.map(Block::to_uint));
        encoder.maybe(number::SIZE2, self.size2);
        encoder.payload(self.payload);
    }
}

/// A block of a kept answer; `None` when it lies past the end.
fn part_of(kept: &Kept, asked: Block, max_szx: u8, size2: bool) -> Option<Part<'_>> {
    let cut = asked.at_most(max_szx);
    let (offset, len) = (cut.offset(), kept.body.len());
    let end = len.min(offset + cut.size());
    let payload = kept.body.get(offset..end).filter(|payload| !payload.is_empty())?;
    let size2 = (size2 || offset == 0).then(|| u32::try_from(len).unwrap_or(u32::MAX));
    let block2 = Some(Block {
        more: end < len,
        ..cut
    });
    Some(Part {
        head: &kept.head,
        etag: Some(&kept.etag),
        observe: None,
        block1: None,
        block2,
        size2,
        payload,
    })
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
                Outcome::Complete(body) => {
                    request = Some(Request {
                        payload: body,
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
        let request = request.unwrap_or_else(|| Request::from_message(message));
        let mut open = Box::new(Open {
            peer,
            mid: message.mid,
            kind: message.kind,
            token: message.token,
            operation,
            answer_key: self.answer_key(operation, message),
            block2: options.block2,
            block1: options.block1.filter(|_| !streamed),
            size2: options.size2.is_some(),
            observe: options.observe,
            acknowledged: false,
            state: State::Waiting,
            sending: None,
            acknowledge_at: None,
            expires: Some(now + self.config.exchange_lifetime()),
            armed: None,
        });
        self.remember(
            (peer, message.mid),
            datagram,
            received.is_confirmable(),
            Replay::Silent,
            now,
        );
        if received.is_confirmable() {
            open.acknowledge_at = Some(now + self.config.processing_delay);
        }
        self.keep_exchange(id, open);
        self.events.push_back(Event::Request {
            exchange: Exchange(id),
            peer,
            request,
        });
    }

    fn answer_key(&self, operation: u64, message: &Message<'_>) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u64(operation);
        hasher.write_u32(message.options.accept.map_or(u32::MAX, u32::from));
        hasher.finish()
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

    /// Answers a Block2 request for a later block; false when the application must be asked.
    fn answer_kept(&mut self, received: &Received<'_, P>, key: u64, block: Block) -> bool {
        let Some(kept) = self.answers.get((received.peer, key), received.now) else {
            if received.message.code.is_safe() {
                return false;
            }
            // Asking again would do the work again.
            self.answer_now(received, false, |reply| {
                reply.code(Code::REQUEST_ENTITY_INCOMPLETE)
            });
            return true;
        };
        let szx = self.szx;
        let size2 = received.message.options.size2.is_some();
        self.answer_now(received, false, |reply| match part_of(&kept, block, szx, size2) {
            Some(part) => part.write(&mut reply.encoder),
            None => reply.code(Code::BAD_REQUEST),
        });
        true
    }

    /// Answers a request of a peer. A body above one block is cut and kept for the following Block2 requests.
    /// With `response.observe` set and Observe 0 in the request the exchange stays open for [`Stack::notify`].
    ///
    /// # Errors
    /// [`UnknownExchange`] when nobody waits for it any more.
    pub fn respond(
        &mut self,
        exchange: Exchange,
        response: Response,
        now: Instant,
    ) -> Result<(), UnknownExchange> {
        let id = exchange.0;
        if !self
            .exchanges
            .get(&id)
            .is_some_and(|open| matches!(open.state, State::Waiting))
        {
            return Err(UnknownExchange);
        }
        let Some(mut open) = self.exchanges.remove(&id) else {
            return Err(UnknownExchange);
        };
        let observes = open.observe == Some(0) && response.observe.is_some() && response.code.is_success();
        let mut observer = observes.then(|| Observer::new(now));
        let sequence = observer.as_mut().map(|observer| observer.next_sequence(now));
        let kind = match open.kind {
            Kind::Confirmable if !open.acknowledged => Kind::Acknowledgement,
            kind => kind,
        };
        open.acknowledge_at = None;
        open.expires = None;
        let mid = self.send_response(id, &mut open, response, kind, sequence, now);
        match observer {
            Some(observer) => {
                open.state = State::Observing(observer);
                if kind == Kind::NonConfirmable {
                    self.note_unconfirmed(id, &mut open, mid);
                }
                if let Some(old) = self.observers.insert((open.peer, open.token), id) {
                    self.lose_exchange(old, now);
                }
                self.keep_exchange(id, open);
            }
            None if kind == Kind::Confirmable => {
                open.state = State::Closing;
                self.keep_exchange(id, open);
            }
            None => self.drop_exchange(id, open, now),
        }
        Ok(())
    }

    /// Puts one message out; a confirmable one is watched from now on. Gives its Message ID.
    pub(crate) fn send_response(
        &mut self,
        id: u64,
        open: &mut Open<P>,
        mut response: Response,
        kind: Kind,
        observe: Option<u32>,
        now: Instant,
    ) -> u16 {
        let peer = open.peer;
        let mid = if kind == Kind::Acknowledgement {
            open.mid
        } else {
            self.mid(peer, now)
        };
        let body = std::mem::take(&mut response.payload);
        let block1 = response
            .block1
            .or(open.block1.map(|block| Block { more: false, ..block }));
        let etag = response.etag.take().map(|mut etag| {
            etag.truncate(8);
            etag
        });
        let limit = block::size(open.block2.map_or(self.szx, |asked| asked.szx.min(self.szx)));
        let later = open.block2.is_some_and(|asked| asked.num > 0);
        let refused;
        let kept;
        let part = if response.code.is_success() && (body.len() > limit || later) {
            let etag = etag.unwrap_or_else(|| self.etag_of(&body));
            kept = Kept::new(response, etag, Arc::from(body));
            let asked = open.block2.unwrap_or(Block {
                num: 0,
                more: false,
                szx: self.szx,
            });
            let asked = if observe.is_some() {
                Block { num: 0, ..asked }
            } else {
                asked
            };
            if kept.body.len() > limit {
                self.answers
                    .put((peer, open.answer_key), kept.clone(), &self.config, now);
                self.schedule_sweep(now);
            }
            if let Some(part) = part_of(&kept, asked, self.szx, open.size2) {
                Part {
                    observe,
                    block1,
                    ..part
                }
            } else {
                refused = Response::new(Code::BAD_REQUEST);
                Part {
                    head: &refused,
                    etag: None,
                    observe: None,
                    block1,
                    block2: None,
                    size2: None,
                    payload: &[],
                }
            }
        } else {
            let whole = open
                .block2
                .filter(|_| response.code.is_success() && !body.is_empty());
            Part {
                head: &response,
                etag: etag.as_deref().filter(|etag| !etag.is_empty()),
                observe,
                block1,
                block2: whole.map(|asked| Block {
                    num: 0,
                    more: false,
                    szx: asked.szx.min(self.szx),
                }),
                size2: whole
                    .filter(|_| open.size2)
                    .and_then(|_| u32::try_from(body.len()).ok()),
                payload: body.get(..limit.min(body.len())).unwrap_or_default(),
            }
        };
        let (start, buf) = self.out.open();
        let mut encoder = Encoder::new(buf, kind, Code::EMPTY, mid, open.token);
        part.write(&mut encoder);
        if encoder.is_broken() {
            self.out.abandon(start);
            let (_, buf) = self.out.open();
            Encoder::new(buf, kind, Code::INTERNAL_SERVER_ERROR, mid, open.token);
        }
        self.sent_response(id, open, kind, mid, start, now);
        mid
    }

    fn sent_response(
        &mut self,
        id: u64,
        open: &mut Open<P>,
        kind: Kind,
        mid: u16,
        start: usize,
        now: Instant,
    ) {
        let peer = open.peer;
        let datagram = self.out.written(start);
        if open.block1.is_some() {
            let tail = datagram
                .get(4 + open.token.as_bytes().len()..)
                .unwrap_or_default();
            let code = datagram.get(1).copied().unwrap_or_default();
            self.assemblies.answered((peer, open.operation), id, code, tail);
        }
        match kind {
            Kind::Acknowledgement => self
                .dedup
                .answer(peer, open.mid, Replay::Datagram(datagram.into())),
            Kind::Confirmable => {
                let backoff = Backoff::new(&self.config, &mut self.random, now);
                open.sending = Some(Sending {
                    mid,
                    datagram: datagram.to_vec(),
                    backoff,
                });
                self.mids.insert((peer, mid), Owner::Exchange(id));
            }
            _ => {}
        }
        self.out.commit(peer, start);
    }

    fn etag_of(&self, body: &[u8]) -> Vec<u8> {
        let mut hasher = self.keys.build_hasher();
        hasher.write(body);
        hasher.finish().to_be_bytes().to_vec()
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
            if !sending.backoff.again(&self.config, now) {
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
