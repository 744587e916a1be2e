//! Sockets, event loop, blobs and registration liveness around the `CoAP` core.
//!
//! [`Engine`] is what a caller holds; its thread owns everything that happens per datagram. The caller submits
//! [actions](Engine::request) and drains [`Event`]s; neither side ever waits for the other's work.

#![deny(unsafe_code)]

mod action;
mod blob;
mod core;
mod engine;
mod error;
mod event;
pub mod identity;
mod key;
mod liveness;
mod offers;
mod random;
mod reporter;
mod secure;
mod security;
mod settings;
mod shared;
mod site;
mod socket;
mod worker;

pub use blob::Digest;
pub use engine::{Engine, Target};
pub use error::Error;
pub use event::{Claim, Download, Event, Remote, SecurityEvent, SessionExport, reason};
pub use key::{PeerKey, Principal, Route};
pub use random::entropy;
pub use security::{Security, default_suites};
pub use settings::{SettingError, Settings};
