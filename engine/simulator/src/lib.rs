//! Thousands of light LwM2M devices on one thread: for load, and for trying campaigns on a fleet that doesn't exist.
//!
//! [`Fleet`] has devices that live as real ones do: they register, update, answer, take firmware by push or pull and
//! come back with its version. [`Load`] only asks, as fast as the server answers, and measures. Both speak through
//! sockets of their own, one an association, because a server tells devices apart by address.

#![forbid(unsafe_code)]

mod device;
mod fleet;
mod load;
mod random;
mod sockets;
mod tlv;

pub use fleet::{Counts, Fleet, FleetOptions};
pub use load::{Load, Report};
