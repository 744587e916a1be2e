//! Thousands of light LwM2M devices on one thread: for load, and for trying campaigns on a fleet that doesn't exist.
//!
//! [`Fleet`] has devices that live as real ones do: they register, update, answer, take firmware by push or pull and
//! come back with its version. [`Load`] only asks, as fast as the server answers, and measures. Both speak plain CoAP
//! from addresses of their own, because a server tells devices apart by address; with [`Security`] they speak DTLS, and
//! devices that send with connection ids may share addresses.

#![deny(unsafe_code)]

mod device;
mod fleet;
mod links;
mod load;
mod packet_info;
mod random;
mod security;
mod sockets;
mod tlv;

pub use fleet::{Counts, Fleet, FleetOptions};
pub use load::{Load, Report};
pub use security::{Credentials, Security, derived_key};
