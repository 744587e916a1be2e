//! CoAP without I/O: bytes and the time in, bytes, events and the next deadline out.
//!
//! [`Stack`] is one endpoint, client and server at once, generic over the key that names a peer. It never reads a
//! clock, never draws a random number of its own (the seed comes in), never panics on input, and every table and
//! queue in it has a bound in [`Config`]. RFC 7252 (core), RFC 7641 (observe), RFC 7959 (block-wise transfer),
//! RFC 8132 (FETCH, PATCH, iPATCH).

#![forbid(unsafe_code)]

pub mod blob;
pub mod block;
pub mod code;
pub mod codec;
pub mod config;
pub mod event;
pub mod local;
pub mod message;
pub mod options;
mod stack;
pub mod time;

pub use blob::{Blob, Served};
pub use block::Block;
pub use code::{Code, Kind, Token};
pub use codec::{Encoder, Message, ParseError};
pub use config::Config;
pub use event::{
    Event, Exchange, Handle, Peer, Push, Reason, RequestError, Source, Transmit, UnknownExchange,
};
pub use local::{Local, PassAll, Reply, Verdict};
pub use message::{Delivery, Etag, Request, Response};
pub use options::{Options, number};
pub use stack::{Stack, Statistics};
pub use time::Instant;
