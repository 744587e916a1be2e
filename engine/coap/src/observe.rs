//! Answers to requests of ours, and Observe as the observing client (RFC 7252 5.3.2, RFC 7641 3).

use std::time::Duration;

use crate::call::{Call, Flow, Role};
use crate::code::Kind;
use crate::codec::Message;
use crate::dedup::Replay;
use crate::download::Download;
use crate::event::{Event, Handle, Peer, Reason};
use crate::message::{Delivery, Response};
use crate::receive::Received;
use crate::stack::Stack;
use crate::time::Instant;

/// After this time any notification is fresh (RFC 7641 3.4).
const ALWAYS_FRESH: Duration = Duration::from_secs(128);

/// An accepted observation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observing {
    sequence: u32,
    at: Instant,
    /// The first representation has been given to the application.
    delivered: bool,
    /// The call that fetches the later blocks of the newest representation.
    pub(crate) fetch: Option<u64>,
}

impl Observing {
    /// RFC 7641 3.4: newer by the 24-bit sequence number, or 128 s later.
    fn is_fresh(&self, sequence: u32, now: Instant) -> bool {
        let (old, new) = (self.sequence, sequence);
        (old < new && new - old < 1 << 23)
            || (old > new && old - new > 1 << 23)
            || now > self.at + ALWAYS_FRESH
    }
}

impl<P: Peer> Stack<P> {
    /// A response whose token or Message ID belongs to a call.
    pub(crate) fn call_answered(&mut self, id: u64, received: &Received<'_, P>) {
        let Received {
            peer,
            message,
            datagram,
            now,
        } = *received;
        let known = self
            .calls
            .get(&id)
            .is_some_and(|call| call.token == Some(message.token));
        if !known {
            return;
        }
        let full = self.events.len() >= self.config.max_events;
        self.with_call(id, now, |stack, call| {
            let notification = call.observing.is_some();
            if notification && full {
                // Unacknowledged, it comes again.
                return Flow::Keep;
            }
            let unknown = message.options.unknown_critical.is_some();
            match message.kind {
                Kind::Confirmable if unknown => stack.reject(received),
                Kind::Confirmable => stack.out.empty(peer, Kind::Acknowledgement, message.mid),
                _ => {}
            }
            if message.kind != Kind::Acknowledgement && !notification && !unknown {
                let confirmable = received.is_confirmable();
                let replay = if confirmable {
                    Replay::Acknowledge
                } else {
                    Replay::Silent
                };
                stack.remember((peer, message.mid), datagram, confirmable, replay, now);
            }
            let late = message.kind != Kind::Acknowledgement && message.options.observe.is_some();
            if call.role == Role::Deregister && late {
                return Flow::Keep;
            }
            stack.stop_transmission(call);
            call.deadline = None;
            if !matches!(call.role, Role::Observation | Role::Deregister) {
                stack.drop_token(id, call);
            }
            if unknown {
                let detail = "the answer has a critical option that is not understood";
                stack.fail(id, call, Reason::Protocol, detail, now);
                return Flow::End;
            }
            if notification {
                return stack.notified(id, call, message, now);
            }
            stack
                .upload_step(id, call, message, now)
                .unwrap_or_else(|| stack.download_step(id, call, message, now))
        });
    }

    /// A complete answer.
    pub(crate) fn deliver(&mut self, id: u64, call: &mut Call<P>, response: Response, now: Instant) -> Flow {
        match call.role {
            Role::Deregister => Flow::End,
            Role::Fetch { observation } => {
                if response.code.is_success() {
                    self.fetched(observation, response, now);
                } else {
                    self.fetch_failed(observation, Reason::Protocol, "a later block was refused", now);
                }
                Flow::End
            }
            Role::Observation if response.observe.is_some() && response.code.is_success() => {
                self.established(call, &response, now);
                self.represent(id, call, response);
                Flow::Keep
            }
            Role::Plain | Role::Observation | Role::Push => {
                self.events.push_back(Event::Response {
                    handle: Handle(id),
                    peer: call.peer,
                    response,
                });
                Flow::End
            }
        }
    }

    fn established(&mut self, call: &mut Call<P>, response: &Response, now: Instant) {
        let sequence = response.observe.unwrap_or_default();
        call.observing = Some(Observing {
            sequence,
            at: now,
            delivered: false,
            fetch: None,
        });
        call.deadline = None;
        self.release_slot(call, now);
    }

    /// The first representation is the answer, the later ones are notifications.
    fn represent(&mut self, id: u64, call: &mut Call<P>, response: Response) {
        let (handle, peer) = (Handle(id), call.peer);
        let Some(observing) = &mut call.observing else {
            return;
        };
        self.events
            .push_back(if std::mem::replace(&mut observing.delivered, true) {
                Event::Notification {
                    handle,
                    peer,
                    response,
                }
            } else {
                Event::Response {
                    handle,
                    peer,
                    response,
                }
            });
    }

    fn notified(&mut self, id: u64, call: &mut Call<P>, message: &Message<'_>, now: Instant) -> Flow {
        let response = Response::from_message(message);
        let goes_on = response.code.is_success() && response.observe.is_some();
        let Some(observing) = &mut call.observing else {
            return Flow::Keep;
        };
        if let Some(sequence) = response.observe.filter(|_| goes_on) {
            if !observing.is_fresh(sequence, now) {
                return Flow::Keep;
            }
            observing.sequence = sequence;
            observing.at = now;
        }
        if let Some(fetch) = observing.fetch.take() {
            self.with_call(fetch, now, |_, _| Flow::End);
        }
        if goes_on && message.options.block2.is_some_and(|block| block.more) {
            self.fetch_rest(id, call, message, now);
            return Flow::Keep;
        }
        let failed = !response.code.is_success();
        self.represent(id, call, response);
        if goes_on {
            return Flow::Keep;
        }
        if !failed {
            let detail = "the peer ended the observation";
            self.fail(id, call, Reason::Cancelled, detail, now);
        }
        Flow::End
    }

    /// The first answer to an observation is the first block of several.
    pub(crate) fn observed_in_blocks(
        &mut self,
        id: u64,
        call: &mut Call<P>,
        message: &Message<'_>,
        now: Instant,
    ) -> Flow {
        self.established(call, &Response::from_message(message), now);
        if self.fetch_rest(id, call, message, now) {
            return Flow::Keep;
        }
        self.fail(
            id,
            call,
            Reason::Protocol,
            "the first representation could not be fetched",
            now,
        );
        Flow::End
    }

    /// Fetches the later blocks by a request of its own, since the token belongs to the observation (RFC 7959 2.6).
    fn fetch_rest(&mut self, id: u64, call: &mut Call<P>, message: &Message<'_>, now: Instant) -> bool {
        let Ok(download) = Download::first(message, self.config.max_body) else {
            return false;
        };
        if self.calls.len() >= self.config.max_calls {
            return false;
        }
        let mut request = call.request.clone();
        request.observe = None;
        request.etags.clear();
        let delivery = Delivery {
            confirmable: true,
            ..call.delivery
        };
        let role = Role::Fetch { observation: id };
        let child = Call {
            download: Some(Box::new(download)),
            ..Call::new(call.peer, request, delivery, role)
        };
        let fetch = self.admit(Box::new(child), now);
        if let Some(observing) = &mut call.observing {
            observing.fetch = fetch;
        }
        fetch.is_some()
    }

    fn fetched(&mut self, observation: u64, response: Response, now: Instant) {
        self.with_call(observation, now, |stack, call| {
            let Some(observing) = &mut call.observing else {
                return Flow::Keep;
            };
            observing.fetch = None;
            let sequence = Some(observing.sequence);
            stack.represent(
                observation,
                call,
                Response {
                    observe: sequence,
                    ..response
                },
            );
            Flow::Keep
        });
    }

    /// Without its first representation an observation is worth nothing; a lost later one is made good by the next.
    pub(crate) fn fetch_failed(
        &mut self,
        observation: u64,
        reason: Reason,
        detail: &'static str,
        now: Instant,
    ) {
        self.with_call(observation, now, |stack, call| {
            let Some(observing) = &mut call.observing else {
                return Flow::Keep;
            };
            observing.fetch = None;
            if observing.delivered {
                return Flow::Keep;
            }
            stack.fail(observation, call, reason, detail, now);
            Flow::End
        });
    }

    /// Active cancellation: the same request under the same token, with Observe 1 (RFC 7641 3.6).
    pub(crate) fn deregister(&mut self, id: u64, call: &mut Call<P>, now: Instant) -> Flow {
        if let Some(fetch) = call.observing.take().and_then(|observing| observing.fetch) {
            self.with_call(fetch, now, |_, _| Flow::End);
        }
        self.peers.unqueue(call.peer, id);
        call.role = Role::Deregister;
        call.delivery = Delivery::default();
        call.download = None;
        call.upload = None;
        self.advance(id, call, now);
        Flow::Keep
    }
}
