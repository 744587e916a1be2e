//! What the engine keeps of each association beside DTLS: its key, its stored row, and which one an identity is
//! reached by.

use std::sync::Arc;

use coap::{Instant, Map};
use dtls::{Association, AssociationId, Identity};

use crate::identity;
use crate::key::{IdentityHash, PeerKey};
use crate::random::keyed;

/// A question to a device of which a restart has left open whether it is there or a replay of what it sent before.
pub struct Probe {
    pub token: [u8; 8],
    pub mid: u16,
    pub sent: Option<Instant>,
}

/// An association. There are as many as devices, so this is small.
pub struct Entry {
    pub id: AssociationId,
    hash: IdentityHash,
    pub identity: Arc<Identity>,
    /// The stored row; 0 while there is none.
    pub record: u64,
    pub probe: Option<Box<Probe>>,
}

/// All associations of all listeners.
pub struct Associations {
    /// By listener and slot.
    tables: Vec<Vec<Option<Entry>>>,
    /// Entries whose slot was taken before their end was told.
    displaced: Vec<(u16, Entry)>,
    /// Of each identity, the one that registered last, or the newest.
    current: Map<IdentityHash, PeerKey>,
    /// The others of the few identities that have several, the newest last.
    others: Map<IdentityHash, Vec<PeerKey>>,
    /// Listener and slot.
    by_record: Map<u64, (u16, u32)>,
}

impl Default for Associations {
    fn default() -> Self {
        let keyed = keyed();
        Self {
            tables: Vec::new(),
            displaced: Vec::new(),
            current: Map::with_hasher(keyed),
            others: Map::with_hasher(keyed),
            by_record: Map::with_hasher(keyed),
        }
    }
}

fn slot(id: AssociationId) -> usize {
    usize::try_from(id.slot()).unwrap_or(usize::MAX)
}

impl Associations {
    fn place(&mut self, listener: u16, id: AssociationId) -> &mut Option<Entry> {
        let listener = usize::from(listener);
        if self.tables.len() <= listener {
            self.tables.resize_with(listener + 1, Vec::new);
        }
        let slot = slot(id);
        // Slots are dense: a table is as long as the largest number of associations that there were.
        let table = &mut self.tables[listener];
        if table.len() <= slot {
            table.resize_with(slot + 1, || None);
        }
        &mut table[slot]
    }

    /// The key of an association, which is made known when it is not.
    pub fn admit(&mut self, listener: u16, id: AssociationId, identity: &Arc<Identity>) -> PeerKey {
        if let Some(entry) = self.get(listener, id) {
            return PeerKey::association(listener, id, entry.hash);
        }
        let hash = identity::hash(&identity::text(identity));
        let entry = Entry {
            id,
            hash,
            identity: Arc::clone(identity),
            record: 0,
            probe: None,
        };
        if let Some(before) = self.place(listener, id).replace(entry) {
            self.displaced.push((listener, before));
        }
        let key = PeerKey::association(listener, id, hash);
        if let Some(before) = self.current.insert(hash, key) {
            self.others.entry(hash).or_default().push(before);
        }
        key
    }

    /// The key of who sent a datagram.
    pub fn key(&mut self, listener: u16, from: &Association<'_>) -> PeerKey {
        self.admit(listener, from.id, from.identity)
    }

    pub fn get(&self, listener: u16, id: AssociationId) -> Option<&Entry> {
        let entry = self.tables.get(usize::from(listener))?.get(slot(id))?.as_ref()?;
        (entry.id == id).then_some(entry)
    }

    pub fn get_mut(&mut self, listener: u16, id: AssociationId) -> Option<&mut Entry> {
        let entry = self
            .tables
            .get_mut(usize::from(listener))?
            .get_mut(slot(id))?
            .as_mut()?;
        (entry.id == id).then_some(entry)
    }

    /// The association that an identity is reached by.
    pub fn current(&self, identity: IdentityHash) -> Option<PeerKey> {
        self.current.get(&identity).copied()
    }

    /// All associations of an identity.
    pub fn of(&self, identity: IdentityHash) -> Vec<PeerKey> {
        let others = self.others.get(&identity).into_iter().flatten();
        self.current
            .get(&identity)
            .into_iter()
            .chain(others)
            .copied()
            .collect()
    }

    /// From now on its identity is reached by this association.
    pub fn prefer(&mut self, key: PeerKey) {
        let Some(hash) = key.identity() else { return };
        let mut others = self.others.get_mut(&hash).into_iter().flatten();
        if let (Some(other), Some(current)) =
            (others.find(|other| **other == key), self.current.get_mut(&hash))
        {
            std::mem::swap(other, current);
        }
    }

    /// Notes under which row an association is stored.
    pub fn stored(&mut self, listener: u16, id: AssociationId, record: u64) {
        if let Some(entry) = self.get_mut(listener, id) {
            entry.record = record;
            let slot = u32::try_from(id.slot()).unwrap_or(u32::MAX);
            self.by_record.insert(record, (listener, slot));
        }
    }

    /// The association that is stored under a row.
    pub fn by_record(&self, record: u64) -> Option<(u16, AssociationId)> {
        let (listener, slot) = *self.by_record.get(&record)?;
        let entry = self
            .tables
            .get(usize::from(listener))?
            .get(slot as usize)?
            .as_ref()?;
        (entry.record == record).then_some((listener, entry.id))
    }

    /// Forgets an association that has ended.
    pub fn remove(&mut self, listener: u16, id: AssociationId) -> Option<(PeerKey, Entry)> {
        let place = self.place(listener, id);
        let entry = if let Some(entry) = place.take_if(|entry| entry.id == id) {
            entry
        } else {
            let is_it = |(of, entry): &(u16, Entry)| *of == listener && entry.id == id;
            let position = self.displaced.iter().position(is_it)?;
            self.displaced.swap_remove(position).1
        };
        let key = PeerKey::association(listener, id, entry.hash);
        self.by_record.remove(&entry.record);
        self.unlink(entry.hash, key);
        Some((key, entry))
    }

    fn unlink(&mut self, hash: IdentityHash, key: PeerKey) {
        let is_current = self.current.get(&hash) == Some(&key);
        let Some(others) = self.others.get_mut(&hash) else {
            if is_current {
                self.current.remove(&hash);
            }
            return;
        };
        if is_current {
            if let Some(newest) = others.pop() {
                self.current.insert(hash, newest);
            }
        } else {
            others.retain(|other| *other != key);
        }
        if others.is_empty() {
            self.others.remove(&hash);
        }
    }

    /// The associations of one listener.
    pub fn ids(&self, listener: u16) -> Vec<AssociationId> {
        let table = self.tables.get(usize::from(listener));
        table
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(serial: u64, slot: u64) -> AssociationId {
        AssociationId(serial << 32 | slot)
    }

    fn psk(name: &str) -> Arc<Identity> {
        Arc::new(Identity::Psk(name.as_bytes().into()))
    }

    #[test]
    fn an_identity_is_reached_by_its_registering_association_else_the_newest() {
        let mut table = Associations::default();
        let dev = psk("dev");
        let one = table.admit(0, id(1, 0), &dev);
        let hash = one.identity().unwrap();
        assert_eq!(table.current(hash), Some(one));
        let two = table.admit(0, id(2, 1), &dev);
        assert_eq!(table.current(hash), Some(two));
        table.prefer(one);
        assert_eq!(table.current(hash), Some(one));
        let three = table.admit(1, id(1, 0), &dev);
        assert_eq!(table.of(hash).len(), 3);
        table.prefer(one);
        table.remove(0, id(1, 0));
        assert_eq!(table.current(hash), Some(three));
        table.remove(1, id(1, 0));
        table.remove(0, id(2, 1));
        assert_eq!((table.current(hash), table.of(hash)), (None, vec![]));
        assert!(table.current.is_empty() && table.others.is_empty());
    }

    #[test]
    fn an_entry_whose_slot_is_taken_is_still_there_for_its_end() {
        let mut table = Associations::default();
        table.admit(0, id(1, 3), &psk("old"));
        table.stored(0, id(1, 3), 77);
        table.admit(0, id(2, 3), &psk("new"));
        let (_, entry) = table.remove(0, id(1, 3)).unwrap();
        assert_eq!((entry.record, entry.identity), (77, psk("old")));
        assert_eq!(table.by_record(77), None);
        assert!(table.get(0, id(1, 3)).is_none() && table.get(0, id(2, 3)).is_some());
        assert!(table.remove(0, id(1, 3)).is_none());
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 48, "{}", size_of::<Entry>());
    }
}
