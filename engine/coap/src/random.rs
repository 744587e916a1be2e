//! Everything that is drawn from the injected seed: tokens, message ids, back-off, hash keys.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::time::Duration;

/// A hash map whose order and collisions a peer cannot foresee without the key.
pub type Map<K, V> = HashMap<K, V, Keyed>;

/// `SipHash` over the seed and a counter: a peer cannot tell the tokens of others from its own (RFC 7252 11.4).
#[derive(Clone, Debug)]
pub(crate) struct Random {
    seed: u64,
    count: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.count = self.count.wrapping_add(1);
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write_u64(self.count);
        hasher.finish()
    }

    /// Uniform in 0..=span, in microseconds.
    pub(crate) fn within(&mut self, span: Duration) -> Duration {
        let steps = u64::try_from(span.as_micros())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        Duration::from_micros(self.next() % steps)
    }
}

/// Keys of the hash function of a [`Map`].
#[derive(Clone, Copy)]
pub struct Keyed(u64, u64);

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyed")
    }
}

impl Keyed {
    /// A hash function of secret random numbers.
    #[must_use]
    pub const fn new(random: [u64; 2]) -> Self {
        let [start, factor] = random;
        Self(start, factor | 1)
    }
}

impl BuildHasher for Keyed {
    type Hasher = FoldHasher;

    #[inline]
    fn build_hasher(&self) -> FoldHasher {
        FoldHasher {
            state: self.0,
            key: self.1,
        }
    }
}

/// Multiply and fold, 8 bytes a step.
#[derive(Clone)]
pub struct FoldHasher {
    state: u64,
    key: u64,
}

/// The product's halves, folded onto each other.
#[allow(clippy::cast_possible_truncation)]
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => bytes
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

impl fmt::Debug for FoldHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FoldHasher")
    }
}

impl Hasher for FoldHasher {
    #[inline]
    fn finish(&self) -> u64 {
        fold(self.state ^ 0xa076_1d64_78bd_642f, self.key.rotate_left(32) | 1)
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.write_u64(word(chunk));
        }
        let length = u64::try_from(bytes.len()).unwrap_or_default();
        self.write_u64(word(chunks.remainder()) ^ length.rotate_left(56));
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    #[inline]
    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.state = fold(self.state ^ value ^ 0xe703_7ed1_a0b4_28db, self.key);
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}
