//! Requests of ours from the queue to their end: transmission, tokens, time-outs, cancellation (RFC 7252 4, 5.2, 5.3).

use std::sync::Arc;
use std::time::Duration;

use crate::call::{Call, Flow, Role, check};
use crate::code::Token;
use crate::event::{Event, Handle, Peer, Reason, RequestError};
use crate::message::{Delivery, Request};
use crate::reliability::Backoff;
use crate::stack::Stack;
use crate::time::Instant;
use crate::timers::Owner;
use crate::upload::Upload;

impl<P: Peer> Stack<P> {
    /// Sends a request, or queues it behind others to this peer. A large body goes by Block1, a large answer is
    /// fetched by Block2; `request.observe = Some(0)` starts an observation.
    ///
    /// # Errors
    /// [`RequestError`] when a bound is reached or the request is not one.
    pub fn request(
        &mut self,
        peer: P,
        mut request: Request,
        mut delivery: Delivery,
        now: Instant,
    ) -> Result<Handle, RequestError> {
        check(&request)?;
        let observes = request.observe == Some(0) && request.code.is_safe();
        let mut upload = None;
        if request.payload.len() > crate::block::size(self.szx) {
            let body = std::mem::take(&mut request.payload);
            upload = Some(Box::new(Upload::new(Arc::new(body), 0, self.szx, false)));
            delivery.confirmable = true;
        }
        let role = if observes { Role::Observation } else { Role::Plain };
        let call = Box::new(Call {
            upload,
            ..Call::new(peer, request, delivery, role)
        });
        self.start(call, now)
    }

    /// Takes a call of the application in, within the bounds.
    pub(crate) fn start(&mut self, call: Box<Call<P>>, now: Instant) -> Result<Handle, RequestError> {
        if self.calls.len() >= self.config.max_calls {
            return Err(RequestError::TooMany);
        }
        if self.peers.queued(call.peer) >= self.config.max_queued {
            return Err(RequestError::QueueFull);
        }
        self.admit(call, now).map(Handle).ok_or(RequestError::TooMany)
    }

    pub(crate) fn admit(&mut self, mut call: Box<Call<P>>, now: Instant) -> Option<u64> {
        let id = self.next_id();
        if !self.peers.join(call.peer, Owner::Call(id), now) {
            return None;
        }
        self.advance(id, &mut call, now);
        self.keep_call(id, call);
        Some(id)
    }

    /// Sends the next message of a call as soon as NSTART allows.
    pub(crate) fn advance(&mut self, id: u64, call: &mut Call<P>, now: Instant) {
        self.stop_transmission(call);
        call.deadline = None;
        call.paused = false;
        if call.slot || self.peers.acquire(call.peer, id, self.config.nstart) {
            call.slot = true;
            self.send_step(id, call, now);
        }
    }

    fn keep_call(&mut self, id: u64, mut call: Box<Call<P>>) {
        match call.wake() {
            Some(at) => self.timers.arm(Owner::Call(id), &mut call.armed, at),
            None => self.timers.disarm(Owner::Call(id), &mut call.armed),
        }
        self.calls.insert(id, call);
    }

    /// Works on a call outside its table, then puts it back or takes its traces away.
    pub(crate) fn with_call(
        &mut self,
        id: u64,
        now: Instant,
        work: impl FnOnce(&mut Self, &mut Call<P>) -> Flow,
    ) {
        let Some(mut call) = self.calls.remove(&id) else {
            return;
        };
        match work(self, &mut call) {
            Flow::Keep => self.keep_call(id, call),
            Flow::End => self.drop_call(id, call, now),
        }
    }

    fn drop_call(&mut self, id: u64, mut call: Box<Call<P>>, now: Instant) {
        self.stop_transmission(&mut call);
        self.drop_token(id, &mut call);
        self.timers.disarm(Owner::Call(id), &mut call.armed);
        self.peers.unqueue(call.peer, id);
        self.release_slot(&mut call, now);
        self.peers.leave(call.peer, Owner::Call(id), now);
        if !self.peers.is_idle() {
            self.schedule_sweep(now);
        }
        if let Some(child) = call.observing.as_ref().and_then(|observing| observing.fetch) {
            self.with_call(child, now, |_, _| Flow::End);
        }
        if let Role::Fetch { observation } = call.role
            && let Some(parent) = self.calls.get_mut(&observation)
            && let Some(observing) = &mut parent.observing
            && observing.fetch == Some(id)
        {
            observing.fetch = None;
        }
    }

    pub(crate) fn release_slot(&mut self, call: &mut Call<P>, now: Instant) {
        call.release_at = None;
        if !std::mem::take(&mut call.slot) {
            return;
        }
        while let Some(next) = self.peers.release(call.peer) {
            if self.calls.contains_key(&next) {
                return self.with_call(next, now, |stack, call| {
                    call.slot = true;
                    stack.send_step(next, call, now);
                    Flow::Keep
                });
            }
        }
    }

    pub(crate) fn drop_token(&mut self, id: u64, call: &mut Call<P>) {
        if let Some(token) = call.token.take()
            && self.tokens.get(&(call.peer, token)) == Some(&id)
        {
            self.tokens.remove(&(call.peer, token));
        }
    }

    /// No ACK is awaited any more.
    pub(crate) fn stop_transmission(&mut self, call: &mut Call<P>) {
        call.backoff = None;
        if let Some(mid) = call.mid.take() {
            self.mids.remove(&(call.peer, mid));
        }
    }

    /// A token that is not in flight to this peer.
    fn new_token(&mut self, peer: P) -> Token {
        loop {
            let [a, b, c, d, ..] = self.random.next().to_le_bytes();
            let token = Token::new(&[a, b, c, d]).unwrap_or_default();
            if !self.tokens.contains_key(&(peer, token)) {
                return token;
            }
        }
    }

    /// Puts the message of the present step out: a new Message ID, and a new token unless the old one must stay.
    fn send_step(&mut self, id: u64, call: &mut Call<P>, now: Instant) {
        let peer = call.peer;
        let token = match call.token {
            Some(token) if call.role == Role::Deregister => token,
            _ => {
                self.drop_token(id, call);
                let token = self.new_token(peer);
                self.tokens.insert((peer, token), id);
                token
            }
        };
        call.token = Some(token);
        let mid = self.mid(peer, now);
        if let Some(upload) = &mut call.upload {
            upload.sending(now);
        }
        call.encode(mid, token);
        if let Some(upload) = &mut call.upload {
            upload.sent();
        }
        call.mid = Some(mid);
        call.sent_at = now;
        self.mids.insert((peer, mid), Owner::Call(id));
        self.out.push(peer, &call.datagram);
        if call.delivery.confirmable {
            call.backoff = Some(Backoff::new(&self.times, &mut self.random, now));
        } else {
            call.release_at = Some(now + self.times.ack + self.times.spread);
            call.deadline = Some(now + self.answer_wait(call));
        }
        self.limit_transfer(call);
    }

    /// How long an answer may take after the acknowledgement.
    pub(crate) fn answer_wait(&self, call: &Call<P>) -> Duration {
        call.delivery.timeout.unwrap_or(self.times.transmit_wait)
    }

    /// An empty ACK: the answer comes later (RFC 7252 5.2.2).
    pub(crate) fn call_acknowledged(&mut self, id: u64, now: Instant) {
        self.with_call(id, now, |stack, call| {
            stack.stop_transmission(call);
            if call.observing.is_none() {
                call.deadline = Some(now + stack.answer_wait(call));
                stack.limit_transfer(call);
            }
            if !call.is_exclusive() {
                stack.release_slot(call, now);
            }
            Flow::Keep
        });
    }

    pub(crate) fn call_reset(&mut self, id: u64, now: Instant) {
        self.with_call(id, now, |stack, call| {
            stack.fail(id, call, Reason::Reset, "the peer answered with a Reset", now);
            Flow::End
        });
    }

    pub(crate) fn lose_call(&mut self, id: u64, now: Instant) {
        self.with_call(id, now, |stack, call| {
            stack.fail(
                id,
                call,
                Reason::PeerGone,
                "the association with the peer has ended",
                now,
            );
            Flow::End
        });
    }

    pub(crate) fn call_timer(&mut self, id: u64, now: Instant) {
        self.with_call(id, now, |stack, call| {
            call.armed = None;
            if call.deadline.is_some_and(|at| at <= now) {
                if call.paused {
                    stack.advance(id, call, now);
                    return Flow::Keep;
                }
                return stack.timed_out(id, call, "no answer in time", now);
            }
            if call.release_at.is_some_and(|at| at <= now) {
                stack.release_slot(call, now);
            }
            if let Some(backoff) = call.backoff.as_mut().filter(|backoff| backoff.at <= now) {
                if !backoff.again(&stack.times, now) {
                    return stack.timed_out(id, call, "no acknowledgement", now);
                }
                stack.counters.retransmissions += 1;
                stack.out.push(call.peer, &call.datagram);
            }
            Flow::Keep
        });
    }

    fn timed_out(&mut self, id: u64, call: &mut Call<P>, detail: &'static str, now: Instant) -> Flow {
        if self.retry_block(id, call, now) {
            return Flow::Keep;
        }
        self.fail(id, call, Reason::Timeout, detail, now);
        Flow::End
    }

    /// Tells the application that no answer will come. The caller ends the call.
    pub(crate) fn fail(
        &mut self,
        id: u64,
        call: &mut Call<P>,
        reason: Reason,
        detail: &'static str,
        now: Instant,
    ) {
        match call.role {
            Role::Deregister => {}
            Role::Fetch { observation } => self.fetch_failed(observation, reason, detail, now),
            Role::Plain | Role::Observation | Role::Push => {
                self.report_progress(id, call);
                self.events.push_back(Event::Failure {
                    handle: Handle(id),
                    peer: call.peer,
                    reason,
                    detail,
                });
            }
        }
    }

    /// Ends a request or a push at once; ends an observation actively by a GET with Observe 1 (RFC 7641 3.6).
    /// `Failure` with [`crate::Reason::Cancelled`] follows. False when the handle is not known.
    pub fn cancel(&mut self, handle: Handle, now: Instant) -> bool {
        self.end(handle, true, now)
    }

    /// Ends a request, a push or an observation without a word to the peer: the next notification gets a RST.
    /// `Failure` with [`crate::Reason::Cancelled`] follows. False when the handle is not known.
    pub fn forget(&mut self, handle: Handle, now: Instant) -> bool {
        self.end(handle, false, now)
    }

    fn end(&mut self, handle: Handle, active: bool, now: Instant) -> bool {
        let id = handle.0;
        let known = self
            .calls
            .get(&id)
            .is_some_and(|call| matches!(call.role, Role::Plain | Role::Observation | Role::Push));
        if known {
            self.with_call(id, now, |stack, call| {
                stack.fail(id, call, Reason::Cancelled, "cancelled", now);
                if active && call.role == Role::Observation && call.token.is_some() {
                    return stack.deregister(id, call, now);
                }
                Flow::End
            });
        }
        known
    }
}
