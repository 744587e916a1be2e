//! Randomness comes in from outside; hash maps are keyed by it.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// A cryptographically secure generator.
///
/// Randoms, session ids, connection ids, cookie secrets and stand-in keys come from it. Ephemeral ECDH keys and
/// signatures take the system's generator instead, as ring accepts no other.
pub trait Random {
    /// Fills `bytes`; false when that failed.
    fn fill(&mut self, bytes: &mut [u8]) -> bool;
}

/// The system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        let system = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&system, bytes).is_ok()
    }
}

/// The injected generator, checked.
pub(crate) struct Source(pub(crate) Box<dyn Random + Send>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Source {
    /// Random bytes; `None` from a generator that fails or gives nothing but zeros (CVE-2020-11501).
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let filled = self.0.fill(&mut bytes);
        (filled && (N < 8 || bytes.iter().any(|byte| *byte != 0))).then_some(bytes)
    }
}

/// A hash map whose collisions a peer cannot foresee.
pub(crate) type Map<K, V> = HashMap<K, V, Keyed>;

/// Key of the hash function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed(u64);

impl Keyed {
    pub(crate) fn new(random: &mut Source) -> Self {
        Self(u64::from_be_bytes(random.array().unwrap_or_default()))
    }
}

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}
