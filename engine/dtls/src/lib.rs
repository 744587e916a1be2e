//! DTLS 1.2 without I/O, both roles: datagrams and the time in, datagrams, events and the next deadline out.

#![forbid(unsafe_code)]

mod aead;
mod alert;
mod cid;
mod outbox;
mod prf;
mod random;
mod record;
mod suite;
mod window;
mod wire;

pub use alert::{Alert, Failure};
pub use coap::Instant;
