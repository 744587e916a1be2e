//! What is rationed by source: public-key work, and attention after forged records.
//!
//! Both tables have a fixed size; sources that fall into the same place share it.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use coap::{Instant, Keyed};

use crate::config::Config;

const PLACES: usize = 1024;

/// IPv4 /24 or IPv6 /64.
pub(crate) type Prefix = u64;

/// The network that an address is counted under.
pub(crate) fn prefix(address: SocketAddr) -> Prefix {
    match address.ip().to_canonical() {
        // The upper half of a /64 is never zero in use.
        IpAddr::V4(ip) => u64::from(u32::from(ip) >> 8),
        IpAddr::V6(ip) => u64::try_from(u128::from(ip) >> 64).unwrap_or_default(),
    }
}

/// Tokens in a bucket and when they were counted.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// As much as a second's worth may come at once.
    fn refill(&mut self, rate: u32, now: Instant) {
        let rate = f64::from(rate);
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * rate).min(rate);
        self.at = now;
    }
}

/// Handshakes with public keys, in total and by prefix.
#[derive(Debug)]
pub(crate) struct Budget {
    total: Bucket,
    places: Box<[Bucket]>,
    keyed: Keyed,
}

fn place<T>(places: &mut [T], keyed: Keyed, key: impl std::hash::Hash) -> Option<&mut T> {
    let hash = keyed.hash_one(key);
    let count = u64::try_from(places.len()).unwrap_or(1).max(1);
    places.get_mut(usize::try_from(hash % count).unwrap_or_default())
}

impl Budget {
    pub(crate) fn new(config: &Config, keyed: Keyed) -> Self {
        let full = |rate: u32| Bucket {
            tokens: f64::from(rate),
            at: Instant::ZERO,
        };
        Self {
            total: full(config.key_operations_per_second),
            places: vec![full(config.key_operations_per_second_per_prefix); PLACES].into(),
            keyed,
        }
    }

    /// Takes a token from both buckets; false when one is empty.
    pub(crate) fn take(&mut self, address: SocketAddr, config: &Config, now: Instant) -> bool {
        self.total.refill(config.key_operations_per_second, now);
        let Some(own) = place(&mut self.places, self.keyed, prefix(address)) else {
            return false;
        };
        own.refill(config.key_operations_per_second_per_prefix, now);
        let is_there = self.total.tokens >= 1.0 && own.tokens >= 1.0;
        if is_there {
            self.total.tokens -= 1.0;
            own.tokens -= 1.0;
        }
        is_there
    }
}

/// Sources that are not listened to for a moment.
#[derive(Debug)]
pub(crate) struct Throttle {
    places: Box<[Instant]>,
    keyed: Keyed,
}

impl Throttle {
    pub(crate) fn new(keyed: Keyed) -> Self {
        Self {
            places: vec![Instant::ZERO; PLACES].into(),
            keyed,
        }
    }

    pub(crate) fn is_active(&mut self, address: SocketAddr, now: Instant) -> bool {
        place(&mut self.places, self.keyed, address).is_some_and(|until| *until > now)
    }

    pub(crate) fn set(&mut self, address: SocketAddr, span: Duration, now: Instant) {
        if let Some(until) = place(&mut self.places, self.keyed, address) {
            *until = now + span;
        }
    }
}
