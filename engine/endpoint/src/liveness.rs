//! Registrations whose Updates that change nothing are answered without Python (`LwM2M` Core 6.2.2).
//!
//! Tens of thousands of devices send little else, so an entry is small and an Update costs one look-up.

use std::collections::HashMap;
use std::sync::Arc;

use coap::{Code, Message};

use crate::key::{PeerKey, Principal};

/// Updates reported in one event at most.
const REPORT_BATCH: usize = 8192;

struct Registration {
    owner: Principal,
    /// Seconds since the epoch of the last Update.
    seen: f64,
    /// Stands in `Liveness::fresh`.
    reported: bool,
}

/// The table, and what is to be reported.
#[derive(Default)]
pub struct Liveness {
    registrations: HashMap<Arc<str>, Registration>,
    fresh: Vec<Arc<str>>,
}

impl Liveness {
    /// Answers Updates of this registration from this principal.
    pub fn keep(&mut self, location: &str, owner: Principal) {
        if let Some(registration) = self.registrations.get_mut(location) {
            registration.owner = owner;
        } else {
            let registration = Registration {
                owner,
                seen: 0.0,
                reported: false,
            };
            self.registrations.insert(location.into(), registration);
        }
    }

    /// Leaves Updates of this registration to Python again.
    pub fn forget(&mut self, location: &str) {
        // A name that still stands in `fresh` is passed over by `report`.
        self.registrations.remove(location);
    }

    /// Number of registrations.
    pub fn len(&self) -> usize {
        self.registrations.len()
    }

    /// True when the request is an Update that changes nothing, of a registration of this very principal; it is noted.
    pub fn refresh(&mut self, peer: PeerKey, request: &Message<'_>, epoch: f64) -> bool {
        let options = &request.options;
        if request.code != Code::POST || !request.payload.is_empty() || options.block1.is_some() {
            return false;
        }
        let mut path = options.path();
        let (Some("rd"), Some(location), None) = (path.next(), path.next(), path.next()) else {
            return false;
        };
        let Some((name, registration)) = self.registrations.get_key_value(location) else {
            return false;
        };
        if registration.owner != peer.principal()
            || options
                .iter()
                .any(|(number, _)| number == coap::number::URI_QUERY)
        {
            return false;
        }
        let name = Arc::clone(name);
        let Some(registration) = self.registrations.get_mut(location) else {
            return false;
        };
        registration.seen = epoch;
        if !registration.reported {
            registration.reported = true;
            self.fresh.push(name);
        }
        true
    }

    /// True when a report would not be empty.
    pub fn has_news(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// True when a report would be full.
    pub fn is_full(&self) -> bool {
        self.fresh.len() >= REPORT_BATCH
    }

    /// The registrations refreshed since they were last reported, each with the time of its latest Update.
    pub fn report(&mut self) -> Vec<(Arc<str>, f64)> {
        let from = self.fresh.len().saturating_sub(REPORT_BATCH);
        let mut report = Vec::with_capacity(self.fresh.len() - from);
        for name in self.fresh.drain(from..) {
            if let Some(registration) = self.registrations.get_mut(&name) {
                registration.reported = false;
                report.push((name, registration.seen));
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coap::{Encoder, Kind, Token, number};

    fn peer(port: u16) -> PeerKey {
        PeerKey::new(0, ([192, 0, 2, 1], port).into())
    }

    fn update(code: Code, path: &[&str], query: &[&str], payload: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::new();
        let mut encoder = Encoder::new(&mut datagram, Kind::Confirmable, code, 1, Token::EMPTY);
        encoder.each(number::URI_PATH, path);
        encoder.each(number::URI_QUERY, query);
        encoder.payload(payload);
        datagram
    }

    fn refresh(table: &mut Liveness, from: PeerKey, datagram: &[u8]) -> bool {
        table.refresh(from, &Message::parse(datagram).unwrap(), 5.0)
    }

    #[test]
    fn only_bare_updates_from_the_same_peer_are_answered() {
        let mut table = Liveness::default();
        table.keep("a1", peer(1).principal());
        let bare = update(Code::POST, &["rd", "a1"], &[], b"");
        assert!(refresh(&mut table, peer(1), &bare));
        assert!(!refresh(&mut table, peer(2), &bare));
        for other in [
            update(Code::POST, &["rd", "a1"], &["lt=60"], b""),
            update(Code::POST, &["rd", "a1"], &[""], b""),
            update(Code::POST, &["rd", "a1"], &[], b"</1>"),
            update(Code::POST, &["rd", "a2"], &[], b""),
            update(Code::POST, &["rd", "a1", "x"], &[], b""),
            update(Code::POST, &["dp", "a1"], &[], b""),
            update(Code::POST, &["rd"], &[], b""),
            update(Code::DELETE, &["rd", "a1"], &[], b""),
        ] {
            assert!(!refresh(&mut table, peer(1), &other));
        }
        table.forget("a1");
        assert!(!refresh(&mut table, peer(1), &bare));
    }

    #[test]
    fn a_registration_is_reported_once_with_its_latest_time() {
        let mut table = Liveness::default();
        table.keep("a1", peer(1).principal());
        let bare = update(Code::POST, &["rd", "a1"], &[], b"");
        let message = Message::parse(&bare).unwrap();
        assert!(table.refresh(peer(1), &message, 5.0) && table.refresh(peer(1), &message, 7.0));
        assert_eq!(table.report(), [("a1".into(), 7.0)]);
        assert!(!table.has_news());
        assert!(table.refresh(peer(1), &message, 9.0));
        table.forget("a1");
        assert_eq!(table.report(), []);
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<(Arc<str>, Registration)>() <= 56);
    }
}
