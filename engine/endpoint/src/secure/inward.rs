//! What DTLS asks for while it works on a datagram: keys, verdicts, and somebody to take what it has opened.

use std::panic::{AssertUnwindSafe, catch_unwind};

use coap::{Instant, Message, Stack};
use dtls::{Answer, Association, Handler, Identity, PskKeys};

use crate::event::{Event, SecurityEvent};
use crate::identity;
use crate::key::PeerKey;
use crate::secure::associations::{Associations, Probe};
use crate::secure::keys::Keys;
use crate::site::Site;

/// Who an association is with.
pub enum Side<'a> {
    /// Devices, by a listener.
    Devices {
        associations: &'a mut Associations,
        keys: &'a Keys,
    },
    /// A server that we are a client of, which must show this raw public key, if it shows one.
    Server {
        key: PeerKey,
        public_key: Option<&'a [u8]>,
    },
}

/// What came in beside datagrams for the stack.
#[derive(Default)]
pub struct Found {
    /// Peers whose datagram made the stack panic.
    pub panicked: Vec<PeerKey>,
    /// Associations that are to be asked whether they are there.
    pub doubtful: Vec<(u16, dtls::AssociationId)>,
    /// Associations that have answered, with the number of the record.
    pub proved: Vec<(u16, dtls::AssociationId, u64)>,
    /// Lines of the key log.
    pub lines: Vec<Event>,
}

/// The engine for DTLS.
pub struct Inward<'a> {
    pub stack: &'a mut Stack<PeerKey>,
    pub site: &'a mut Site,
    pub side: Side<'a>,
    pub listener: u16,
    pub now: Instant,
    pub found: &'a mut Found,
}

impl Inward<'_> {
    fn pass(&mut self, key: PeerKey, payload: &[u8]) {
        let (stack, site, now) = (&mut *self.stack, &mut *self.site, self.now);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            stack.receive_datagram(key, payload, now, site);
        }));
        if outcome.is_err() {
            self.found.panicked.push(key);
        }
    }
}

/// True for the answer to a probe. A Reset has no token and proves nothing.
fn answers(probe: &Probe, payload: &[u8]) -> bool {
    Message::parse(payload)
        .is_ok_and(|message| message.code.is_response() && message.token.as_bytes() == probe.token)
}

impl Handler for Inward<'_> {
    fn psk(&mut self, identity: &[u8]) -> Answer<PskKeys> {
        match &self.side {
            Side::Devices { keys, .. } => keys.find(identity).cloned().map_or(Answer::Later, Answer::Known),
            Side::Server { .. } => Answer::Unknown,
        }
    }

    fn peer(&mut self, identity: &Identity, _: &[u8]) -> Answer<()> {
        match (&self.side, identity) {
            (Side::Devices { .. }, _) => Answer::Later,
            (Side::Server { public_key, .. }, Identity::RawPublicKey(fingerprint)) => {
                let pinned = public_key.map(identity::fingerprint);
                if pinned.as_ref() == Some(fingerprint) {
                    Answer::Known(())
                } else {
                    Answer::Unknown
                }
            }
            (Side::Server { .. }, _) => Answer::Known(()),
        }
    }

    fn unverified(&mut self, _: &Identity, _: &[u8]) -> Answer<()> {
        match &self.side {
            Side::Devices { .. } => Answer::Later,
            Side::Server { .. } => Answer::Unknown,
        }
    }

    fn unix_time(&mut self) -> u64 {
        // Whole seconds since the epoch, far below the precision of the type.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let seconds = self.site.epoch as u64;
        seconds
    }

    fn datagram(&mut self, from: &Association<'_>, payload: &[u8]) {
        let (listener, id) = (self.listener, from.id);
        let key = match &mut self.side {
            Side::Server { key, .. } => *key,
            Side::Devices { associations, .. } => {
                let key = associations.key(listener, from);
                if !from.fresh {
                    let probe = associations
                        .get(listener, id)
                        .and_then(|entry| entry.probe.as_ref());
                    if probe.is_some_and(|probe| answers(probe, payload)) {
                        self.found.proved.push((listener, id, from.sequence));
                    } else {
                        self.found.doubtful.push((listener, id));
                        return;
                    }
                }
                key
            }
        };
        self.pass(key, payload);
    }

    fn key_log(&mut self, client_random: &[u8; 32], master: &[u8; 48]) {
        let line = format!(
            "CLIENT_RANDOM {} {}",
            identity::hexadecimal("", client_random),
            identity::hexadecimal("", master)
        );
        self.found
            .lines
            .push(Event::Security(SecurityEvent::KeyLog(line)));
    }
}

/// Keys as Python gives them: the current one, then at most one former.
pub fn psk_keys(keys: Vec<dtls::Secret>) -> Option<PskKeys> {
    let mut keys = keys.into_iter();
    Some(PskKeys {
        current: keys.next()?,
        former: keys.next(),
    })
}
