//! Pre-shared keys that Python has found, so that a device that shakes hands again needs nobody to ask; and the
//! handshakes that wait for such an answer.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use coap::{Instant, Map};
use dtls::{Identity, PskKeys};

use crate::random::keyed;

/// Identities whose keys are remembered.
const MAX_KEYS: usize = 1 << 16;
/// Age at which a handshake that waits is over in any case.
const PATIENCE: Duration = Duration::from_secs(120);

/// The identity of a handshake, which its association shares; found by the bytes of its pre-shared key's identity.
#[derive(Clone)]
struct Name(Arc<Identity>);

impl Name {
    fn bytes(&self) -> &[u8] {
        match &*self.0 {
            Identity::Psk(name) => name,
            Identity::RawPublicKey(_) | Identity::Certificate { .. } => &[],
        }
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

/// Both tables.
pub struct Keys {
    known: Map<Name, PskKeys>,
    /// The identities of `known`, the oldest first.
    order: VecDeque<Name>,
    waiting: Map<u64, (Name, Instant)>,
    max_waiting: usize,
}

impl Keys {
    pub fn new(max_waiting: usize) -> Self {
        let keyed = keyed();
        Self {
            known: Map::with_hasher(keyed),
            order: VecDeque::new(),
            waiting: Map::with_hasher(keyed),
            max_waiting,
        }
    }

    pub fn find(&self, identity: &[u8]) -> Option<&PskKeys> {
        self.known.get(identity)
    }

    /// True when no further handshake may ask.
    pub fn is_busy(&mut self, now: Instant) -> bool {
        if self.waiting.len() >= self.max_waiting {
            self.waiting.retain(|_, (_, since)| now.since(*since) < PATIENCE);
        }
        self.waiting.len() >= self.max_waiting
    }

    /// A handshake asks for the keys of an identity.
    pub fn ask(&mut self, handshake: u64, identity: Arc<Identity>, now: Instant) {
        self.waiting.insert(handshake, (Name(identity), now));
    }

    /// The answer to a handshake; found keys are remembered, unless they were forgotten while it waited.
    pub fn answer(&mut self, handshake: u64, keys: Option<&PskKeys>) {
        let waiting = self.waiting.remove(&handshake);
        if let (Some((name, _)), Some(keys)) = (waiting, keys) {
            self.learn(name, keys.clone());
        }
    }

    fn learn(&mut self, name: Name, keys: PskKeys) {
        if self.known.insert(name.clone(), keys).is_none() {
            self.order.push_back(name);
        }
        while self.order.len() > MAX_KEYS {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Asks again from now on; what is being asked is not remembered.
    pub fn forget(&mut self, identity: &[u8]) {
        if self.known.remove(identity).is_some() {
            self.order.retain(|known| known.bytes() != identity);
        }
        self.waiting.retain(|_, (waiting, _)| waiting.bytes() != identity);
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn keys(byte: u8) -> PskKeys {
        PskKeys::new(Zeroizing::new(vec![byte; 16]))
    }

    fn psk(name: &[u8]) -> Arc<Identity> {
        Arc::new(Identity::Psk(name.into()))
    }

    const NOW: Instant = Instant::from_micros(0);

    #[test]
    fn found_keys_are_remembered_and_unknown_ones_are_asked_for_again() {
        let mut table = Keys::new(8);
        table.ask(1, psk(b"a"), NOW);
        table.ask(2, psk(b"b"), NOW);
        table.answer(1, Some(&keys(1)));
        table.answer(2, None);
        assert_eq!(table.find(b"a"), Some(&keys(1)));
        assert_eq!((table.find(b"b"), table.len()), (None, 1));
        table.forget(b"a");
        assert_eq!((table.len(), table.order.len()), (0, 0));
    }

    #[test]
    fn an_answer_that_was_under_way_when_the_key_was_forgotten_is_not_remembered() {
        let mut table = Keys::new(8);
        table.ask(1, psk(b"a"), NOW);
        table.forget(b"a");
        table.answer(1, Some(&keys(1)));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn both_tables_are_bounded() {
        let mut table = Keys::new(4);
        for handshake in 0..4 {
            assert!(!table.is_busy(NOW));
            table.ask(handshake, psk(b"a"), NOW);
        }
        assert!(table.is_busy(NOW) && !table.is_busy(NOW + PATIENCE));
        let count = u64::try_from(MAX_KEYS).unwrap() + 10;
        for number in 0..count {
            table.learn(Name(psk(&number.to_be_bytes())), keys(0));
        }
        assert_eq!((table.len(), table.order.len()), (MAX_KEYS, MAX_KEYS));
        assert!(table.find(&9_u64.to_be_bytes()).is_none() && table.find(&10_u64.to_be_bytes()).is_some());
    }
}
