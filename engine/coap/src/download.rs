//! Large answers fetched by Block2 (RFC 7959 2.4): reassembly, restart on a changed `ETag`, bounds.

use crate::block::{self, Block, RESERVED_SZX};
use crate::call::{Call, Flow, Role};
use crate::codec::Message;
use crate::event::{Peer, Reason};
use crate::message::Response;
use crate::stack::Stack;
use crate::time::Instant;

/// A representation that keeps changing while it is fetched is fetched from the start this often.
const MAX_RESTARTS: u32 = 3;

/// An answer that is not complete yet.
#[derive(Debug)]
pub(crate) struct Download {
    /// The first block's response; its payload grows.
    response: Response,
    szx: u8,
    restarts: u32,
}

impl Download {
    /// What to ask for next.
    pub(crate) fn next(&self) -> Block {
        let num =
            u32::try_from(self.response.payload.len() / block::size(self.szx)).unwrap_or(block::MAX_NUM);
        Block {
            num,
            more: false,
            szx: self.szx,
        }
    }

    /// From a first block, with more to follow.
    pub(crate) fn first(message: &Message<'_>, max_body: usize) -> Result<Self, (Reason, &'static str)> {
        let block = message.options.block2.unwrap_or_default();
        let announced = message
            .options
            .size2
            .map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX));
        if announced > max_body {
            return Err((Reason::TooLarge, "the answer is above the bound for a body"));
        }
        if block.num != 0 || block.szx == RESERVED_SZX || message.payload.len() != block.size() {
            return Err((
                Reason::Protocol,
                "the first block of the answer is not a full first block",
            ));
        }
        Ok(Self {
            response: Response::from_message(message),
            szx: block.szx,
            restarts: 0,
        })
    }
}

/// What a block did.
enum Step {
    Next,
    Complete(Response),
    Fail(Reason, &'static str),
}

impl Download {
    fn step(&mut self, message: &Message<'_>, may_restart: bool, max_body: usize) -> Step {
        let Some(block) = message.options.block2 else {
            // The whole after all.
            return Step::Complete(Response::from_message(message));
        };
        let same = message.options.etags().next() == self.response.etag.as_deref();
        let body = &mut self.response.payload;
        if !body.is_empty() && !same {
            if !may_restart || self.restarts >= MAX_RESTARTS {
                return Step::Fail(Reason::Protocol, "the answer changed while it was fetched");
            }
            self.restarts += 1;
            body.clear();
            return Step::Next;
        }
        let full = message.payload.len() == block.size();
        let wrong = block.szx == RESERVED_SZX || block.offset() != body.len() || (block.more && !full);
        if wrong || message.payload.len() > block.size() {
            return Step::Fail(Reason::Protocol, "the peer sent another block than was asked for");
        }
        if body.len() + message.payload.len() > max_body {
            return Step::Fail(Reason::TooLarge, "the answer is above the bound for a body");
        }
        if body.is_empty() {
            self.response = Response::from_message(message);
        } else {
            body.extend_from_slice(message.payload);
        }
        self.szx = self.szx.min(block.szx);
        if block.more {
            return Step::Next;
        }
        let mut response = std::mem::take(&mut self.response);
        response.block2 = None;
        Step::Complete(response)
    }
}

impl<P: Peer> Stack<P> {
    /// Takes an answer that may be a block of a larger one; otherwise it is delivered.
    pub(crate) fn download_step(
        &mut self,
        id: u64,
        call: &mut Call<P>,
        message: &Message<'_>,
        now: Instant,
    ) -> Flow {
        let single = call.request.block2.is_some();
        let more = message.options.block2.is_some_and(|block| block.more);
        if single || !message.code.is_success() || !(more || call.download.is_some()) {
            return self.deliver(id, call, Response::from_message(message), now);
        }
        if call.download.is_none() && call.role == Role::Observation && message.options.observe.is_some() {
            return self.observed_in_blocks(id, call, message, now);
        }
        let max_body = self.config.max_body;
        // A request that is not safe is not repeated for the sake of its answer.
        let may_restart = call.request.code.is_safe();
        let step = match &mut call.download {
            Some(download) => download.step(message, may_restart, max_body),
            None => match Download::first(message, max_body) {
                Ok(download) => {
                    call.download = Some(Box::new(download));
                    Step::Next
                }
                Err((reason, detail)) => Step::Fail(reason, detail),
            },
        };
        match step {
            Step::Next => {
                self.advance(id, call, now);
                Flow::Keep
            }
            Step::Complete(response) => self.deliver(id, call, response, now),
            Step::Fail(reason, detail) => {
                self.fail(id, call, reason, detail, now);
                Flow::End
            }
        }
    }
}
