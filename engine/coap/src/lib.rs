//! CoAP without I/O: bytes and the time in, bytes, events and the next deadline out.
//!
//! [`Stack`] is one endpoint, client and server at once, generic over the key that names a peer. It never reads a
//! clock, never draws a random number of its own (the seed comes in), never panics on input, and every table and
//! queue in it has a bound in [`Config`]. RFC 7252 (core), RFC 7641 (observe), RFC 7959 (block-wise transfer),
//! RFC 8132 (FETCH, PATCH, iPATCH).

#![forbid(unsafe_code)]

mod answer;
mod answers;
mod assembly;
pub mod blob;
pub mod block;
mod call;
mod client;
pub mod code;
pub mod codec;
pub mod config;
mod dedup;
mod download;
pub mod event;
mod exchange;
pub mod local;
pub mod message;
mod observe;
mod observed;
pub mod options;
mod outbox;
mod peers;
mod random;
mod receive;
mod reliability;
mod stack;
pub mod time;
mod timers;
mod upload;

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
pub use random::{FoldHasher, Keyed, Map};
pub use stack::{Stack, Statistics};
pub use time::Instant;
