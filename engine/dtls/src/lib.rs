//! DTLS 1.2 without I/O, both roles: datagrams and the time in, datagrams, events and the next deadline out.
//!
//! [`Server`] is all associations of one listener, [`Client`] is one association. Neither reads a clock or panics on
//! input, every table in them has a bound in [`Config`], and randomness comes in, save where ring draws its own for
//! ephemeral keys and signatures. RFC 6347 (DTLS 1.2), RFC 7925 (profile for the Internet of Things), RFC 9146
//! (connection ids), RFC 7627 (extended master secret), RFC 7250 (raw public keys), RFC 5077 (resumption), RFC 5746
//! (renegotiation, which is refused). Points in time are those of the crate `coap`, so that the deadlines of both compare.

#![forbid(unsafe_code)]

mod accept;
mod aead;
mod alert;
mod associations;
mod bounds;
mod cbc;
mod ccm;
pub mod certificate;
mod cid;
mod client;
mod client_handshake;
pub mod config;
mod cookie;
pub mod event;
pub mod export;
mod flight;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod half_open;
mod handshake;
mod hello;
mod keys;
mod message;
mod outbox;
mod prf;
mod random;
mod reassembly;
mod record;
mod server;
mod server_handshake;
mod server_hello;
mod session;
mod suite;
mod ticket;
mod transcript;
mod window;
mod wire;

pub use alert::{Alert, Failure};
pub use certificate::{Trust, Usage};
pub use cid::{ConnectionId, MAX_CID};
pub use client::Client;
pub use coap::Instant;
pub use config::{Config, ConnectionIds, PreSharedKey};
pub use event::{
    Answer, Association, AssociationId, Event, Handler, HandshakeId, Identity, LookUp, PskKeys, Reason, Role,
    Secret, SendError,
};
pub use export::{Exported, ImportError, SealingKey};
pub use keys::{CertifiedKey, SigningKey};
pub use outbox::Transmit;
pub use random::{Random, SystemRandom};
pub use server::{Server, Statistics};
pub use suite::{KeyExchange, Suite};
