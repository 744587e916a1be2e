//! The system's randomness in large portions: a handshake draws many small pieces, and each would be a system call.

use coap::Keyed;
use dtls::{Random, SystemRandom};
use zeroize::{Zeroize, Zeroizing};

const PORTION: usize = 4096;

/// A seed that nobody can guess.
pub fn entropy() -> u64 {
    // The standard library seeds its hashers from the system's entropy, which is all that is needed here.
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id())
}

/// A hash function for tables whose keys peers choose.
pub fn keyed() -> Keyed {
    Keyed::new([entropy(), entropy()])
}

/// Gives out each byte once and forgets it.
pub struct Portions {
    bytes: Zeroizing<Vec<u8>>,
}

impl Portions {
    /// Draws nothing yet.
    pub fn new() -> Self {
        Self {
            bytes: Zeroizing::new(Vec::with_capacity(PORTION)),
        }
    }
}

impl Random for Portions {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        if bytes.len() > PORTION {
            return SystemRandom.fill(bytes);
        }
        if self.bytes.len() < bytes.len() {
            self.bytes.resize(PORTION, 0);
            if !SystemRandom.fill(&mut self.bytes) {
                self.bytes.clear();
                return false;
            }
        }
        let start = self.bytes.len() - bytes.len();
        let Some(last) = self.bytes.get_mut(start..) else {
            return false;
        };
        bytes.copy_from_slice(last);
        last.zeroize();
        self.bytes.truncate(start);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_bytes_are_given_out_twice() {
        let mut random = Portions::new();
        let mut seen = HashSet::new();
        for _ in 0..2000 {
            let mut bytes = [0; 13];
            assert!(random.fill(&mut bytes) && seen.insert(bytes));
            let used = random.bytes.capacity().min(PORTION) - random.bytes.len();
            assert!(used < PORTION && random.bytes.capacity() == PORTION);
        }
        assert!(random.fill(&mut [0; PORTION + 1]));
    }
}
