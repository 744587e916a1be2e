//! The tables of a [`Server`]'s associations: by place, address, connection id and identity.

use std::net::SocketAddr;
use std::sync::Arc;

use coap::Instant;

use crate::cid::ConnectionId;
use crate::event::{AssociationId, Event, Identity, Reason};
use crate::server::Server;
use crate::session::Session;

impl Server {
    /// Before a new association takes its place: one at its address ends, if that has no connection id or the same
    /// identity, and so does what is too much for its identity.
    pub(crate) fn make_way(&mut self, session: &Session) {
        if let Some(older) = self.by_address.get(&session.address).copied() {
            self.retire(older, Reason::Replaced);
        }
        let same_address = self
            .places_of(&session.identity)
            .find(|(_, other)| other.address == session.address)
            .map(|(index, _)| index);
        if let Some(older) = same_address {
            self.retire(older, Reason::Replaced);
        }
        while self.places_of(&session.identity).count() >= self.config.max_associations_per_identity.max(1) {
            let others = self.places_of(&session.identity);
            let Some((silent, _)) = others.min_by_key(|(_, other)| (other.last_seen, other.serial)) else {
                break;
            };
            self.retire(silent, Reason::Replaced);
        }
    }

    /// Gives a session its place and number.
    pub(crate) fn insert(&mut self, mut session: Session, now: Instant) -> AssociationId {
        if let Some((identity, newest)) = self.by_identity.get_key_value(&session.identity) {
            session.identity = Arc::clone(identity);
            session.older = Some(*newest);
        }
        let (serial, address, cid) = (session.serial, session.address, session.keys.own_cid);
        let identity = Arc::clone(&session.identity);
        let lingers = session.linger.is_some();
        let index = u32::try_from(self.sessions.insert(session)).unwrap_or(u32::MAX);
        if cid.is_empty() {
            self.by_address.insert(address, index);
        } else {
            self.by_cid.insert(cid, index);
        }
        self.by_identity.insert(identity, index);
        let id = id_of(index, serial);
        if lingers {
            self.lingering.insert((now + self.config.linger, id));
        }
        id
    }

    pub(crate) fn has_cid(&self, cid: &ConnectionId) -> bool {
        self.by_cid.contains_key(cid)
    }

    pub(crate) fn has_address(&self, address: SocketAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    pub(crate) fn next_serial(&mut self) -> u32 {
        self.last_serial = self.last_serial.wrapping_add(1);
        self.last_serial
    }

    /// Ends an association.
    pub(crate) fn retire(&mut self, index: u32, reason: Reason) {
        if let Some(association) = self.take_out(index) {
            self.events.push_back(Event::Closed { association, reason });
        }
    }

    /// Removes an association from every table.
    pub(crate) fn take_out(&mut self, index: u32) -> Option<AssociationId> {
        let session = self.sessions.try_remove(index as usize)?;
        if self.by_cid.get(&session.keys.own_cid) == Some(&index) {
            self.by_cid.remove(&session.keys.own_cid);
        }
        if self.by_address.get(&session.address) == Some(&index) {
            self.by_address.remove(&session.address);
        }
        self.unlink(index, &session);
        Some(id_of(index, session.serial))
    }

    /// Takes an association out of the chain of its identity.
    fn unlink(&mut self, index: u32, session: &Session) {
        if self.by_identity.get(&session.identity) == Some(&index) {
            if let Some(older) = session.older {
                self.by_identity.insert(Arc::clone(&session.identity), older);
            } else {
                self.by_identity.remove(&session.identity);
            }
            return;
        }
        let newer = self
            .places_of(&session.identity)
            .find(|(_, other)| other.older == Some(index))
            .map(|(newer, _)| newer);
        if let Some(newer) = newer.and_then(|newer| self.sessions.get_mut(newer as usize)) {
            newer.older = session.older;
        }
    }

    /// The associations of an identity with their places, the newest first.
    fn places_of(&self, identity: &Identity) -> impl Iterator<Item = (u32, &Session)> {
        let place = |index: u32| Some((index, self.sessions.get(index as usize)?));
        let newest = self.by_identity.get(identity).copied().and_then(place);
        std::iter::successors(newest, move |(_, session)| session.older.and_then(place))
    }

    pub(crate) fn find(&mut self, id: AssociationId) -> Option<(u32, &mut Session)> {
        let (index, serial) = place_of(id);
        let session = self.sessions.get_mut(index as usize)?;
        (session.serial == serial).then_some((index, session))
    }

    /// Ends all that an identity has: its associations and handshakes that claim it.
    pub fn revoke(&mut self, identity: &Identity) {
        while let Some(index) = self.by_identity.get(identity).copied() {
            if let Some(session) = self.sessions.get_mut(index as usize) {
                session.close(&mut self.out);
            }
            self.retire(index, Reason::Closed);
        }
        for id in self.half_open.ids() {
            let claims = self.half_open.get_mut(id).is_some_and(|handshake| {
                handshake
                    .core
                    .identity
                    .as_deref()
                    .is_some_and(|claimed| claimed == identity)
            });
            if claims {
                self.half_open.remove(id);
            }
        }
    }

    /// Where and who the peer of an association is.
    pub fn peer(&self, association: AssociationId) -> Option<(SocketAddr, &Arc<Identity>)> {
        let (index, serial) = place_of(association);
        let session = self.sessions.get(index as usize)?;
        (session.serial == serial).then_some((session.address, &session.identity))
    }

    /// When an association last had an authentic record.
    pub fn last_seen(&self, association: AssociationId) -> Option<Instant> {
        let (index, serial) = place_of(association);
        let session = self.sessions.get(index as usize)?;
        (session.serial == serial).then_some(session.last_seen)
    }

    /// The newest association of an identity.
    pub fn association_of(&self, identity: &Identity) -> Option<AssociationId> {
        self.associations_of(identity).next()
    }

    /// The associations of an identity, the newest first.
    pub fn associations_of(&self, identity: &Identity) -> impl Iterator<Item = AssociationId> {
        let places = self.places_of(identity);
        places.map(|(index, session)| id_of(index, session.serial))
    }
}

/// The number of the association at a place.
pub(crate) fn id_of(index: u32, serial: u32) -> AssociationId {
    AssociationId(u64::from(serial) << 32 | u64::from(index))
}

/// Place and serial number of an association.
pub(crate) fn place_of(id: AssociationId) -> (u32, u32) {
    let half = |part: u64| u32::try_from(part & 0xffff_ffff).unwrap_or_default();
    (half(id.0), half(id.0 >> 32))
}
