//! Answers on their way out: cut into blocks, kept for later blocks, sent and remembered (RFC 7252 5.2, RFC 7959 2.4).

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use crate::answers::Kept;
use crate::block::Block;
use crate::code::{Code, Kind};
use crate::codec::{Encoder, Message};
use crate::dedup::Replay;
use crate::event::{Exchange, Peer, UnknownExchange};
use crate::exchange::{Open, Sending, State};
use crate::message::Response;
use crate::observed::Observer;
use crate::options::number;
use crate::receive::Received;
use crate::reliability::Backoff;
use crate::stack::Stack;
use crate::time::Instant;
use crate::timers::Owner;

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
    if cut.is_beyond_numbers() {
        return None;
    }
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

/// A response fitted to one message.
enum Cut {
    /// The body is no larger than a block, and no later block was asked for.
    Whole {
        response: Response,
        block2: Option<Block>,
        szx: u8,
        size2: bool,
    },
    /// One block of a larger body; it exists.
    Block {
        kept: Kept,
        asked: Block,
        szx: u8,
        size2: bool,
    },
}

impl Cut {
    /// An error answer: its text is cut short rather than into blocks.
    fn diagnostic(mut response: Response, limit: usize) -> Self {
        response.payload.truncate(limit);
        Self::Whole {
            response,
            block2: None,
            szx: 0,
            size2: false,
        }
    }

    fn part(&self, observe: Option<u32>, block1: Option<Block>) -> Part<'_> {
        match self {
            Self::Whole {
                response,
                block2,
                szx,
                size2,
            } => {
                let block2 = block2.filter(|_| !response.payload.is_empty());
                Part {
                    head: response,
                    etag: response.etag.as_deref(),
                    observe,
                    block1,
                    block2: block2.map(|asked| Block {
                        num: 0,
                        more: false,
                        szx: asked.szx.min(*szx),
                    }),
                    size2: block2
                        .filter(|_| *size2)
                        .and_then(|_| u32::try_from(response.payload.len()).ok()),
                    payload: &response.payload,
                }
            }
            Self::Block {
                kept,
                asked,
                szx,
                size2,
            } => {
                let head = &kept.head;
                let none = Part {
                    head,
                    etag: None,
                    observe,
                    block1,
                    block2: None,
                    size2: None,
                    payload: &[],
                };
                part_of(kept, *asked, *szx, *size2).map_or(none, |part| Part {
                    observe,
                    block1,
                    ..part
                })
            }
        }
    }
}

impl<P: Peer> Stack<P> {
    pub(crate) fn answer_key(&self, operation: u64, message: &Message<'_>) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u64(operation);
        hasher.write_u32(message.options.accept.map_or(u32::MAX, u32::from));
        hasher.finish()
    }

    /// Answers a Block2 request for a later block; false when the application must be asked.
    pub(crate) fn answer_kept(&mut self, received: &Received<'_, P>, key: u64, block: Block) -> bool {
        let Some(kept) = self.answers.get((received.peer, key), received.now) else {
            if received.message.code.is_safe() {
                return false;
            }
            // Asking again would do the work again.
            self.answer_now(received, false, |reply| {
                reply.code(Code::REQUEST_ENTITY_INCOMPLETE);
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
        let accepted = open.observe == Some(0) && response.observe.is_some() && response.code.is_success();
        let mut observer = accepted.then(|| Observer::new(now));
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
        response.etag = response.etag.filter(|etag| (1..=8).contains(&etag.len()));
        let mid = if kind == Kind::Acknowledgement {
            open.mid
        } else {
            self.mid(open.peer, now)
        };
        let block1 = response
            .block1
            .or(open.block1.map(|block| Block { more: false, ..block }));
        let cut = if response.code.is_success() {
            self.cut(open, response, observe.is_some(), now)
        } else {
            Cut::diagnostic(response, open.limit(self.szx))
        };
        let (start, buf) = self.out.open();
        let mut encoder = Encoder::new(buf, kind, Code::EMPTY, mid, open.token);
        cut.part(observe, block1).write(&mut encoder);
        if encoder.is_broken() {
            self.out.abandon(start);
            let (_, buf) = self.out.open();
            Encoder::new(buf, kind, Code::INTERNAL_SERVER_ERROR, mid, open.token);
        }
        self.sent_response(id, open, kind, mid, start, now);
        mid
    }

    /// Finds the block that was asked for, and keeps a body of several for the requests that follow.
    fn cut(&mut self, open: &Open<P>, mut response: Response, notification: bool, now: Instant) -> Cut {
        let limit = open.limit(self.szx);
        let asked = open.block2.map(|asked| {
            if notification {
                Block { num: 0, ..asked }
            } else {
                asked
            }
        });
        let later = asked.is_some_and(|asked| asked.num > 0);
        if response.payload.len() <= limit && !later {
            return Cut::Whole {
                response,
                block2: asked,
                szx: self.szx,
                size2: open.size2,
            };
        }
        let body = std::mem::take(&mut response.payload);
        let etag = response.etag.take().unwrap_or_else(|| self.etag_of(&body));
        let kept = Kept::new(response, etag, Arc::from(body));
        if kept.body.len() > limit {
            self.answers
                .put((open.peer, open.answer_key), kept.clone(), &self.config, now);
            self.schedule_sweep(now);
        }
        let asked = asked.unwrap_or(Block {
            num: 0,
            more: false,
            szx: self.szx,
        });
        if part_of(&kept, asked, self.szx, open.size2).is_none() {
            return Cut::diagnostic(Response::new(Code::BAD_REQUEST), 0);
        }
        Cut::Block {
            kept,
            asked,
            szx: self.szx,
            size2: open.size2,
        }
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
                let backoff = Backoff::new(&self.times, &mut self.random, now);
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
}
