//! Requests and responses as owned values, the form in which they leave for and come from the application.

use std::time::Duration;

use crate::block::Block;
use crate::code::Code;
use crate::codec::Message;

/// Bytes of an entity tag, 1 to 8 of them (RFC 7252 5.10.6).
pub type Etag = Vec<u8>;

/// A request, incoming or outgoing. Fields of the other direction stay at their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub code: Code,
    /// Uri-Host.
    pub host: Option<String>,
    /// Uri-Path, a segment each.
    pub path: Vec<String>,
    /// Uri-Query, an argument each.
    pub query: Vec<String>,
    /// Content-Format of the payload.
    pub content_format: Option<u16>,
    /// Accept.
    pub accept: Option<u16>,
    /// Observe: 0 register, 1 deregister (RFC 7641 2).
    pub observe: Option<u32>,
    /// `ETag`: representations that the client holds.
    pub etags: Vec<Etag>,
    /// If-Match; an empty value asks for existence alone.
    pub if_match: Vec<Etag>,
    /// If-None-Match.
    pub if_none_match: bool,
    /// Incoming: the block in hand on a streamed path, the last block of an assembled body. Outgoing: unused.
    pub block1: Option<Block>,
    /// Incoming: the block that the answer will be cut to, for information. Outgoing: fetch this block alone.
    pub block2: Option<Block>,
    /// Incoming: Size1 as the client announced it. Outgoing: unused.
    pub size1: Option<u32>,
    /// The whole body (of one block only on a streamed path).
    pub payload: Vec<u8>,
}

/// How an outgoing request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// CON with retransmission, or NON.
    pub confirmable: bool,
    /// Wait for the answer after the acknowledgement (or after a NON was sent); `None` is `MAX_TRANSMIT_WAIT`.
    pub timeout: Option<Duration>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            confirmable: true,
            timeout: None,
        }
    }
}

/// A response, incoming or outgoing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Response code.
    pub code: Code,
    /// Content-Format of the payload.
    pub content_format: Option<u16>,
    /// `ETag`, at most 8 bytes.
    pub etag: Option<Etag>,
    /// Max-Age in seconds.
    pub max_age: Option<u32>,
    /// Location-Path, a segment each.
    pub location_path: Vec<String>,
    /// Location-Query, an argument each.
    pub location_query: Vec<String>,
    /// Outgoing, on a streamed path: the block that is answered; for assembled bodies the stack adds it.
    pub block1: Option<Block>,
    /// Incoming: the block that was asked for by [`Request::block2`]. Outgoing: unused, the stack cuts.
    pub block2: Option<Block>,
    /// Incoming: Size2 as the server gave it.
    pub size2: Option<u32>,
    /// Outgoing: accept the observation asked for. Incoming: the sequence number (RFC 7641 3.4).
    pub observe: Option<u32>,
    /// The whole body; the stack cuts an outgoing one into blocks where needed.
    pub payload: Vec<u8>,
}

impl Response {
    /// A response that is a code alone.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            code,
            ..Self::default()
        }
    }

    pub(crate) fn from_message(message: &Message<'_>) -> Self {
        let options = &message.options;
        Self {
            code: message.code,
            content_format: options.content_format,
            etag: options.etags().next().map(<[u8]>::to_vec),
            max_age: options.max_age,
            location_path: options.location_path().map(str::to_owned).collect(),
            location_query: options.location_query().map(str::to_owned).collect(),
            block1: options.block1,
            block2: options.block2,
            size2: options.size2,
            observe: options.observe,
            payload: message.payload.to_vec(),
        }
    }
}

impl Request {
    /// A request without payload.
    #[must_use]
    pub fn new(code: Code, path: &[&str]) -> Self {
        Self {
            code,
            path: path.iter().map(|&segment| segment.to_owned()).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn from_message(message: &Message<'_>) -> Self {
        let options = &message.options;
        Self {
            code: message.code,
            host: options.host().map(str::to_owned),
            path: options.path().map(str::to_owned).collect(),
            query: options.query().map(str::to_owned).collect(),
            content_format: options.content_format,
            accept: options.accept,
            observe: options.observe,
            etags: options.etags().map(<[u8]>::to_vec).collect(),
            if_match: options.if_match().map(<[u8]>::to_vec).collect(),
            if_none_match: options.if_none_match,
            block1: options.block1,
            block2: options.block2,
            size1: options.size1,
            payload: message.payload.to_vec(),
        }
    }
}
