//! The synchronous way to answer a request: the caller of `receive_datagram` is asked first and may answer at once.

use crate::block::Block;
use crate::code::{Code, Kind, Token};
use crate::codec::{Encoder, Message};
use crate::options::number;

/// What a [`Local`] did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not answered: assemble its body if need be and hand it to the application.
    Pass,
    /// Not answered: hand each Block1 block to the application as a request of its own (a streamed path).
    PassStreamed,
    /// The reply is written. Nothing is remembered: a duplicate is simply asked again. For what is idempotent, by
    /// method or by meaning (RFC 7252 4.5).
    Answered,
    /// The reply is written and is replayed to duplicates.
    AnsweredOnce,
    /// No reply: the request is dropped as if it had never come.
    Drop,
}

/// Answers what needs no application.
pub trait Local<P> {
    /// Called once for each request that is well-formed, understood and not a known duplicate.
    ///
    /// `reply` starts as an empty 5.00; what was written to it counts only with `Answered` and `AnsweredOnce`.
    fn request(&mut self, peer: P, request: &Message<'_>, reply: &mut Reply<'_>) -> Verdict;
}

/// A [`Local`] that passes everything on.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassAll;

impl<P> Local<P> for PassAll {
    fn request(&mut self, _: P, _: &Message<'_>, _: &mut Reply<'_>) -> Verdict {
        Verdict::Pass
    }
}

/// Writes an answer straight into the output buffer; type, Message ID and token are in place.
///
/// Options go in ascending order of their numbers, the payload last; an answer that breaks this is replaced by 5.00.
#[derive(Debug)]
pub struct Reply<'a> {
    pub(crate) encoder: Encoder<'a>,
}

impl<'a> Reply<'a> {
    /// A reply that is appended to `buf`; for callers outside a stack, such as tests.
    pub fn new(buf: &'a mut Vec<u8>, kind: Kind, mid: u16, token: Token) -> Self {
        Self {
            encoder: Encoder::new(buf, kind, Code::INTERNAL_SERVER_ERROR, mid, token),
        }
    }

    /// Sets the response code.
    pub fn code(&mut self, code: Code) {
        self.encoder.code(code);
    }

    /// Appends an option.
    pub fn option(&mut self, number: u16, value: &[u8]) {
        self.encoder.option(number, value);
    }

    /// Appends a uint option in its shortest form.
    pub fn uint(&mut self, number: u16, value: u32) {
        self.encoder.uint(number, value);
    }

    /// Appends a Block1 or Block2 option.
    pub fn block(&mut self, number: u16, block: Block) {
        self.encoder.block(number, block);
    }

    /// Appends the payload.
    pub fn payload(&mut self, payload: &[u8]) {
        self.encoder.payload(payload);
    }

    /// 5.03 with a Max-Age in seconds (RFC 7252 5.9.3.4).
    pub fn busy(&mut self, max_age: u32) {
        self.code(Code::SERVICE_UNAVAILABLE);
        self.uint(number::MAX_AGE, max_age);
    }
}
