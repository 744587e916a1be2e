//! Large bodies sent by Block1 (RFC 7959 2.5, 2.9): request payloads, and pushes out of a source from any offset.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::block::{self, Block, MAX_NUM};
use crate::call::{Call, Flow, Role};
use crate::code::Code;
use crate::codec::Message;
use crate::config::Config;
use crate::event::{Event, Handle, Peer, Push, Reason, RequestError, Source};
use crate::message::{Delivery, Request};
use crate::reliability::Backoff;
use crate::stack::Stack;
use crate::time::Instant;

/// A peer that keeps losing the sequence (4.08) gets the body from byte 0 this often.
const MAX_RESTARTS: u32 = 3;

/// Longest wait between two tries at a peer that answers 5.03 without Max-Age.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The same datagram is sent again for this long; after that, and well within `EXCHANGE_LIFETIME`, a new one.
const SAME_DATAGRAM: Duration = Duration::from_secs(150);

/// State of a body on its way out.
pub(crate) struct Upload {
    source: Arc<dyn Source>,
    /// All before it is acknowledged.
    offset: u64,
    szx: u8,
    /// A push outlives time-outs and 5.03; a request payload has nobody to wait so long.
    patient: bool,
    announced: bool,
    restarts: u32,
    pauses: u32,
    repeated: u32,
    /// End of the furthest block sent.
    high: u64,
    reported: u64,
    /// The block in hand was first sent then.
    waiting_since: Option<Instant>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("offset", &self.offset)
            .field("szx", &self.szx)
            .finish_non_exhaustive()
    }
}

/// What of the body goes into the next message.
pub(crate) struct Part<'a> {
    pub(crate) block: Block,
    pub(crate) size1: Option<u32>,
    pub(crate) payload: &'a [u8],
}

impl Upload {
    /// A body from `offset` on, rounded down to a whole block.
    pub(crate) fn new(source: Arc<dyn Source>, offset: u64, szx: u8, patient: bool) -> Self {
        let size = block::size(szx) as u64;
        let offset = offset - offset % size;
        Self {
            source,
            offset,
            szx,
            patient,
            announced: false,
            restarts: 0,
            pauses: 0,
            repeated: 0,
            high: offset,
            reported: offset,
            waiting_since: None,
        }
    }

    fn len(&self) -> u64 {
        self.source.bytes().len() as u64
    }

    fn end(&self) -> u64 {
        self.len().min(self.offset + block::size(self.szx) as u64)
    }

    fn is_last(&self) -> bool {
        self.end() == self.len()
    }

    /// The number of the last block has 20 bits.
    fn fits(&self) -> bool {
        self.len() <= (u64::from(MAX_NUM) + 1) * block::size(self.szx) as u64
    }

    pub(crate) fn part(&self) -> Part<'_> {
        let start = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let end = usize::try_from(self.end()).unwrap_or(usize::MAX);
        let num = u32::try_from(self.offset / block::size(self.szx) as u64).unwrap_or(MAX_NUM);
        Part {
            block: Block {
                num,
                more: !self.is_last(),
                szx: self.szx,
            },
            size1: (!self.announced || self.offset == 0)
                .then(|| u32::try_from(self.len()).unwrap_or(u32::MAX)),
            payload: self.source.bytes().get(start..end).unwrap_or_default(),
        }
    }

    /// The block in hand is about to be sent.
    pub(crate) fn sending(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
        if self.offset < self.high {
            self.repeated = self.repeated.saturating_add(1);
        }
    }

    pub(crate) fn sent(&mut self) {
        self.announced = true;
        self.high = self.high.max(self.end());
    }

    fn acknowledged(&mut self) {
        self.offset = self.end();
        self.waiting_since = None;
        self.pauses = 0;
    }

    fn restart(&mut self) {
        self.offset = 0;
        self.reported = 0;
        self.restarts += 1;
        self.waiting_since = None;
    }

    /// When the lack of progress ends the transfer.
    fn limit(&self, config: &Config) -> Option<Instant> {
        let patience = if self.pauses > 0 {
            config.busy_timeout
        } else {
            config.transfer_timeout
        };
        self.waiting_since.map(|since| since + patience)
    }
}

/// What an answer to a block means.
enum Step {
    /// Send what is next.
    Next,
    /// Send the same again after a while.
    Pause(Duration),
    /// It is the answer to the whole.
    Final,
    Fail(Reason, &'static str),
}

impl Upload {
    fn step(&mut self, message: &Message<'_>, config: &Config, now: Instant) -> Step {
        let echoed = message.options.block1;
        let smaller = echoed.map(|block| block.szx).filter(|szx| *szx < self.szx);
        match message.code {
            Code::REQUEST_ENTITY_INCOMPLETE if self.offset > 0 && self.restarts < MAX_RESTARTS => {
                self.restart();
                Step::Next
            }
            Code::REQUEST_ENTITY_TOO_LARGE => match smaller {
                Some(szx) => self.shrink(szx),
                None if self.patient || self.offset > 0 => {
                    Step::Fail(Reason::TooLarge, "the peer takes no body of this size (4.13)")
                }
                None => Step::Final,
            },
            Code::SERVICE_UNAVAILABLE if self.patient || self.offset > 0 => self.pause(message, config, now),
            code if !code.is_success() || self.is_last() => {
                if code.is_success() {
                    self.acknowledged();
                }
                Step::Final
            }
            code if code != Code::CONTINUE && echoed.is_none() => Step::Fail(
                Reason::Protocol,
                "the peer took the first block for the whole body",
            ),
            _ => {
                self.acknowledged();
                match smaller {
                    Some(szx) => self.shrink(szx),
                    None => Step::Next,
                }
            }
        }
    }

    /// Goes on at the same byte with smaller blocks, and never grows again (RFC 7959 2.4).
    fn shrink(&mut self, szx: u8) -> Step {
        self.szx = szx;
        if self.fits() {
            Step::Next
        } else {
            Step::Fail(
                Reason::TooLarge,
                "the peer's block size is too small for a body of this size",
            )
        }
    }

    fn pause(&mut self, message: &Message<'_>, config: &Config, now: Instant) -> Step {
        let own = Duration::from_secs(1 << self.pauses.min(6)).min(MAX_PAUSE);
        let asked = message
            .options
            .max_age
            .map(|seconds| Duration::from_secs(seconds.max(1).into()));
        self.pauses = self.pauses.saturating_add(1);
        let pause = asked.unwrap_or(own);
        match self.limit(config) {
            Some(limit) if now + pause >= limit => Step::Final,
            _ => Step::Pause(pause),
        }
    }
}

impl<P: Peer> Stack<P> {
    /// Starts a Block1 transfer. Requests to the same peer may go out between its blocks.
    ///
    /// The transfer goes on at the same byte when the peer asks for smaller blocks, from byte 0 after 4.08, and
    /// waits out 5.03; a time-out repeats the block in hand. It ends with the peer's answer to the last block, with
    /// any other error code as the answer, or with a failure: too-large (4.13 without a smaller size), timeout (no
    /// progress for [`Config::transfer_timeout`]), reset, protocol.
    ///
    /// # Errors
    /// [`RequestError`] when a bound is reached or the push is not one.
    pub fn push(&mut self, peer: P, push: Push, now: Instant) -> Result<Handle, RequestError> {
        let szx = block::szx(push.block_size);
        let len = push.source.bytes().len() as u64;
        if len == 0 || push.offset >= len {
            return Err(RequestError::Invalid("there is nothing to send at this offset"));
        }
        let upload = Upload::new(push.source, push.offset, szx, true);
        if !upload.fits() {
            return Err(RequestError::Invalid(
                "the body has more blocks of this size than can be numbered",
            ));
        }
        let request = Request {
            code: push.code,
            path: push.path,
            query: push.query,
            content_format: push.content_format,
            ..Request::default()
        };
        crate::call::check(&request)?;
        let call = Call::new(peer, request, Delivery::default(), Role::Push);
        self.start(
            Box::new(Call {
                upload: Some(Box::new(upload)),
                ..call
            }),
            now,
        )
    }

    /// Takes the answer to a block. `None`: it is the answer to the whole and is to be delivered.
    pub(crate) fn upload_step(
        &mut self,
        id: u64,
        call: &mut Call<P>,
        message: &Message<'_>,
        now: Instant,
    ) -> Option<Flow> {
        let upload = call.upload.as_mut()?;
        let before = upload.offset;
        let step = upload.step(message, &self.config, now);
        if upload.offset > before {
            self.counters.pushed_blocks += 1;
        }
        match step {
            Step::Next => {
                self.report_coarsely(id, call);
                if call.role == Role::Push && self.peers.queued(call.peer) > 0 {
                    self.release_slot(call, now);
                }
                self.advance(id, call, now);
                Some(Flow::Keep)
            }
            Step::Pause(pause) => {
                self.release_slot(call, now);
                call.deadline = Some(now + pause);
                call.paused = true;
                Some(Flow::Keep)
            }
            Step::Final => {
                self.report_progress(id, call);
                call.upload = None;
                None
            }
            Step::Fail(reason, detail) => {
                self.fail(id, call, reason, detail, now);
                Some(Flow::End)
            }
        }
    }

    fn report_coarsely(&mut self, id: u64, call: &mut Call<P>) {
        let due = call.upload.as_ref().is_some_and(|upload| {
            upload.offset == 0 || upload.offset - upload.reported >= self.config.progress_bytes
        });
        if due && self.events.len() < self.config.max_events {
            self.report_progress(id, call);
        }
    }

    pub(crate) fn report_progress(&mut self, id: u64, call: &mut Call<P>) {
        if let (Role::Push, Some(upload)) = (call.role, &mut call.upload) {
            upload.reported = upload.offset;
            self.events.push_back(Event::Progress {
                handle: Handle(id),
                peer: call.peer,
                offset: upload.offset,
                size: upload.len(),
                repeated: upload.repeated,
            });
        }
    }

    /// Ends the wait of a push when it is without progress for too long.
    pub(crate) fn limit_transfer(&self, call: &mut Call<P>) {
        if call.role == Role::Push
            && let Some(limit) = call.upload.as_ref().and_then(|upload| upload.limit(&self.config))
        {
            call.deadline = Some(call.deadline.map_or(limit, |deadline| deadline.min(limit)));
        }
    }

    /// A block of a push has timed out: it is sent again unless there was no progress for too long.
    pub(crate) fn retry_block(&mut self, id: u64, call: &mut Call<P>, now: Instant) -> bool {
        if call.role != Role::Push {
            return false;
        }
        let Some(upload) = &mut call.upload else {
            return false;
        };
        if upload.limit(&self.config).is_some_and(|limit| limit <= now) {
            return false;
        }
        // As long as the peer remembers the Message ID it can tell that it has this block already.
        if call.backoff.is_some() && now.since(call.sent_at) < SAME_DATAGRAM {
            upload.sending(now);
            call.backoff = Some(Backoff::new(&self.times, &mut self.random, now));
            self.out.push(call.peer, &call.datagram);
        } else {
            self.release_slot(call, now);
            self.advance(id, call, now);
            return true;
        }
        self.limit_transfer(call);
        true
    }
}
