//! Randomness comes in from outside; hash maps are keyed by it.

use std::fmt;

use coap::Keyed;

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

    /// A hash function for tables whose keys peers choose.
    pub(crate) fn keyed(&mut self) -> Keyed {
        Keyed::new([(); 2].map(|()| u64::from_be_bytes(self.array().unwrap_or_default())))
    }
}
