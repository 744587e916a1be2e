//! How DTLS and `CoAP` come together: datagrams and news of the one for the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap::{Code, Encoder, Instant, Kind, Token, number};
use dtls::{AssociationId, Identity, LookUp, Random, SystemRandom};

use super::Core;
use crate::action::SecurityAction;
use crate::event::{Claim, Event, Remote, SecurityEvent, SessionExport, reason};
use crate::key::{PeerKey, Route};
use crate::secure::{
    Gate, Inward, News, Probe, Secure, Side, handshake_number, handshake_of, may_ask, psk_keys,
};
use crate::security::Secured;

/// An association is not asked more often whether it is there.
const PROBE_GAP: Duration = Duration::from_secs(1);

macro_rules! inward {
    ($core:ident, $side:expr, $listener:expr, $now:expr) => {
        Inward {
            stack: &mut $core.stack,
            site: &mut $core.site,
            side: $side,
            listener: $listener,
            now: $now,
            found: &mut $core.secure.found,
        }
    };
}

macro_rules! devices {
    ($core:ident) => {
        Side::Devices {
            associations: &mut $core.secure.associations,
            keys: &$core.secure.keys,
        }
    };
}

macro_rules! server {
    ($core:ident, $key:expr) => {
        Side::Server {
            key: $key,
            public_key: $core
                .secure
                .secured
                .as_ref()
                .and_then(|secured| secured.server_public_key.as_deref()),
        }
    };
}

impl Core {
    /// Takes a listener on, with the associations that were restored for it and their rows.
    pub fn open(&mut self, gate: Gate, restored: &[(AssociationId, u64)]) {
        let number = u16::try_from(self.secure.gates.len()).unwrap_or(u16::MAX);
        self.secure.gates.push(gate);
        for &(id, record) in restored {
            let identity = self
                .secure
                .devices(number)
                .and_then(|devices| devices.server.peer(id).map(|(_, identity)| Arc::clone(identity)));
            if let Some(identity) = identity {
                self.secure.associations.admit(number, id, &identity);
                self.secure.associations.stored(number, id, record);
            }
        }
    }

    /// Takes a datagram that a listener received.
    pub fn inbound(&mut self, listener: u16, address: SocketAddr, datagram: &[u8], now: Instant) {
        if !self.secure.is_secure(listener) {
            self.datagram(PeerKey::new(listener, address), datagram, now);
            return;
        }
        if may_ask(datagram) && self.is_behind(now) {
            self.secure.shed += 1;
            return;
        }
        self.site.collected = self.reporter.requests;
        self.guarded(|core| core.decrypt(listener, address, datagram, now));
        self.settle(listener, now);
    }

    /// Python has so much to hear of handshakes that no further one may ask.
    fn is_behind(&mut self, now: Instant) -> bool {
        let waiting = self.reporter.security();
        waiting >= self.max_security || self.secure.keys.is_busy(now)
    }

    fn decrypt(&mut self, listener: u16, address: SocketAddr, datagram: &[u8], now: Instant) {
        if self.secure.links.knows(listener, address) {
            let side = server!(self, PeerKey::server(listener, address));
            let mut inward = inward!(self, side, listener, now);
            self.secure
                .links
                .receive(listener, address, datagram, now, &mut inward);
        } else if let Some(Gate::Devices(devices)) = self.secure.gates.get_mut(usize::from(listener)) {
            let mut inward = inward!(self, devices!(self), listener, now);
            devices
                .server
                .receive_datagram(address, datagram, now, &mut inward);
        }
    }

    /// Draws the consequences of what DTLS has done at a listener.
    fn settle(&mut self, listener: u16, now: Instant) {
        self.collect();
        for line in self.secure.found.lines.drain(..) {
            self.reporter.emit(line);
        }
        if let Some(key) = self.site.registered_by.take() {
            self.secure.associations.prefer(key);
        }
        while let Some((listener, id, sequence)) = self.secure.found.proved.pop() {
            self.proved(listener, id, sequence);
        }
        while let Some((listener, id)) = self.secure.found.doubtful.pop() {
            self.probe(listener, id, now);
        }
        while let Some(key) = self.secure.found.panicked.pop() {
            self.panics += 1;
            self.guarded(|core| core.stack.forget_peer(key, now));
            self.collect();
        }
        self.device_news(listener, now);
        self.server_news(now);
    }

    fn proved(&mut self, listener: u16, id: AssociationId, sequence: u64) {
        if let Some(devices) = self.secure.devices(listener) {
            devices.server.confirm_fresh(id, sequence);
        }
        if let Some(entry) = self.secure.associations.get_mut(listener, id) {
            entry.probe = None;
        }
    }

    /// Asks a device of a restored association for something that only it can answer now. What it sent meanwhile
    /// is not taken: it may be a replay. A confirmable message it will send again.
    fn probe(&mut self, listener: u16, id: AssociationId, now: Instant) {
        let Secure {
            gates, associations, ..
        } = &mut self.secure;
        let (Some(Gate::Devices(devices)), Some(entry)) = (
            gates.get_mut(usize::from(listener)),
            associations.get_mut(listener, id),
        ) else {
            return;
        };
        let mut random = [0; 10];
        if entry.probe.is_none() && !SystemRandom.fill(&mut random) {
            return;
        }
        let [high, low, token @ ..] = random;
        let probe = entry.probe.get_or_insert_with(|| {
            Box::new(Probe {
                token,
                mid: u16::from_be_bytes([high, low]),
                sent: None,
            })
        });
        if probe.sent.is_some_and(|sent| now.since(sent) < PROBE_GAP) {
            return;
        }
        probe.sent = Some(now);
        let mut datagram = Vec::new();
        let token = Token::new(&probe.token).unwrap_or(Token::EMPTY);
        let mut encoder = Encoder::new(&mut datagram, Kind::Confirmable, Code::GET, probe.mid, token);
        // Supported binding and modes: every LwM2M device has it, and it is short.
        encoder.each(number::URI_PATH, &["3", "0", "16"]);
        let sent = devices.server.send(id, &datagram);
        self.secure.unsent += u64::from(sent.is_err());
    }

    /// Events of the associations of a listener.
    fn device_news(&mut self, listener: u16, now: Instant) {
        while let Some(event) = self
            .secure
            .devices(listener)
            .and_then(|devices| devices.server.poll_event())
        {
            self.device_event(listener, event, now);
        }
    }

    fn device_event(&mut self, listener: u16, event: dtls::Event, now: Instant) {
        use dtls::Event as News;
        match event {
            News::Established {
                association,
                address,
                identity,
            } => {
                self.secure.associations.admit(listener, association, &identity);
                self.tell(SecurityEvent::Established { identity, address });
                self.export(listener, association);
            }
            News::Reserve { association } => self.export(listener, association),
            News::Closed { association, reason } => self.closed(listener, association, reason.as_str(), now),
            News::Failed {
                address,
                reason,
                claimed,
            } => self.tell(SecurityEvent::HandshakeFailed {
                address,
                reason,
                identity: claimed,
            }),
            News::LookUp {
                handshake,
                address,
                look_up,
            } => {
                let handshake = handshake_number(listener, handshake);
                let (identity, der, verified) = match look_up {
                    LookUp::Psk(identity) => {
                        self.secure.keys.ask(handshake, Arc::clone(&identity), now);
                        (identity, Box::default(), true)
                    }
                    LookUp::Peer {
                        identity,
                        der,
                        verified,
                    } => (identity, der, verified),
                };
                self.tell(SecurityEvent::LookUp {
                    handshake,
                    address,
                    identity,
                    der,
                    verified,
                });
            }
            News::Suspicious { association, address } => {
                if let Some(entry) = self.secure.associations.get(listener, association) {
                    let identity = Arc::clone(&entry.identity);
                    self.tell(SecurityEvent::Suspicious { identity, address });
                }
            }
            News::Moved { .. } => {}
        }
    }

    fn tell(&mut self, event: SecurityEvent) {
        self.reporter.emit(Event::Security(event));
    }

    /// Exports an association that goes on, if exports are wanted.
    fn export(&mut self, listener: u16, id: AssociationId) {
        let sealing_key = self
            .secure
            .secured
            .as_ref()
            .and_then(|secured| secured.sealing_key.clone());
        let Some((key, devices)) = sealing_key.zip(self.secure.devices(listener)) else {
            return;
        };
        let Some(exported) = devices.server.export(id, &key) else {
            return;
        };
        let sealed = devices.placed(&exported);
        self.secure.associations.stored(listener, id, exported.record);
        self.exported(&exported, sealed);
    }

    fn exported(&mut self, exported: &dtls::Exported, sealed: Vec<u8>) {
        self.reporter.export(SessionExport {
            record: exported.record,
            generation: exported.generation,
            mark: exported.mark,
            sealed,
        });
    }

    /// An association is over: what is under way with it fails while it is still known whose it was.
    fn closed(&mut self, listener: u16, id: AssociationId, reason: &'static str, now: Instant) {
        let Some((key, entry)) = self.secure.associations.remove(listener, id) else {
            return;
        };
        self.leaving = Some((key, Arc::clone(&entry.identity)));
        self.guarded(|core| core.stack.forget_peer(key, now));
        self.collect();
        self.leaving = None;
        let identity = entry.identity;
        self.tell(SecurityEvent::Ended { identity, reason });
        if entry.record != 0 {
            let record = entry.record;
            self.tell(SecurityEvent::SessionGone { record });
        }
    }

    /// News of our client role.
    fn server_news(&mut self, now: Instant) {
        for news in self.secure.links.news() {
            let key = match news {
                News::Failed(key, reason) => {
                    self.handshake_failure = Some(reason);
                    key
                }
                News::Closed(key) => key,
            };
            self.guarded(|core| core.stack.forget_peer(key, now));
            self.collect();
            self.handshake_failure = None;
        }
    }

    /// Who stands behind a key.
    pub(super) fn remote(&mut self, key: PeerKey) -> Remote {
        let mut remote = Remote::of_key(key);
        if let Route::Association(id) = key.route() {
            let leaving = self.leaving.as_ref().filter(|(of, _)| *of == key);
            let entry = self.secure.associations.get(key.listener(), id);
            let identity = entry
                .map(|entry| &entry.identity)
                .or(leaving.map(|(_, identity)| identity));
            remote.claim = identity.map(|identity| Claim::Proved(Arc::clone(identity)));
            if let Some((address, _)) = self
                .secure
                .devices(key.listener())
                .and_then(|devices| devices.server.peer(id))
            {
                remote.address = address;
            }
        }
        remote
    }

    /// Why a call has failed: the stack knows of no handshakes.
    pub(super) fn cause(&self, cause: coap::Reason, detail: &'static str) -> (&'static str, &'static str) {
        match (cause, self.handshake_failure) {
            (coap::Reason::PeerGone, Some(word)) => (reason::HANDSHAKE, word),
            _ => (cause.as_str(), detail),
        }
    }

    /// Hears what came of datagrams that were given to DTLS.
    pub fn sent(&mut self, now: Instant) {
        for listener in self.secure.listeners() {
            self.device_news(listener, now);
        }
        self.server_news(now);
    }

    /// Does what is due in DTLS.
    pub(super) fn secure_timeout(&mut self, now: Instant) {
        if self.secure.next_timeout().is_none_or(|due| due > now) {
            return;
        }
        for listener in self.secure.listeners() {
            if let Some(devices) = self.secure.devices(listener) {
                devices.server.handle_timeout(now);
            }
            self.device_news(listener, now);
        }
        self.secure.links.timeout(now);
        self.server_news(now);
    }

    /// Carries out what Python says of DTLS.
    pub(super) fn secure_action(&mut self, action: SecurityAction, now: Instant) {
        match action {
            SecurityAction::Secure(secured) => self.reconfigure(*secured),
            SecurityAction::Psk { handshake, keys } => {
                let keys = psk_keys(keys);
                self.secure.keys.answer(handshake, keys.as_ref());
                let (listener, id) = handshake_of(handshake);
                if let Some(Gate::Devices(devices)) = self.secure.gates.get_mut(usize::from(listener)) {
                    let mut inward = inward!(self, devices!(self), listener, now);
                    devices.server.provide_psk(id, keys.as_ref(), now, &mut inward);
                }
                self.settle(listener, now);
            }
            SecurityAction::Verdict { handshake, accepted } => {
                let (listener, id) = handshake_of(handshake);
                if let Some(Gate::Devices(devices)) = self.secure.gates.get_mut(usize::from(listener)) {
                    let mut inward = inward!(self, devices!(self), listener, now);
                    devices.server.provide_verdict(id, accepted, now, &mut inward);
                }
                self.settle(listener, now);
            }
            SecurityAction::ForgetKey(identity) => self.forget_key(&identity),
            SecurityAction::Revoke(identity) => {
                self.forget_key(&identity);
                for listener in self.secure.listeners() {
                    if let Some(devices) = self.secure.devices(listener) {
                        devices.server.revoke(&identity);
                    }
                    self.device_news(listener, now);
                }
            }
            SecurityAction::Confirm(marks) => {
                for (record, mark) in marks {
                    if let Some((listener, id)) = self.secure.associations.by_record(record)
                        && let Some(devices) = self.secure.devices(listener)
                    {
                        devices.server.confirm(id, mark);
                    }
                }
            }
        }
    }

    fn forget_key(&mut self, identity: &Identity) {
        if let Identity::Psk(name) = identity {
            self.secure.keys.forget(name);
        }
    }

    fn reconfigure(&mut self, secured: Secured) {
        for gate in &mut self.secure.gates {
            if let Gate::Devices(devices) = gate {
                devices.server.reconfigure(Arc::clone(&secured.server));
            }
        }
        self.secure.links.reconfigure(&secured.client);
        self.secure.secured = Some(secured);
    }

    /// Ends our part in everything secure: devices are suspended, with what is to be stored of them, and servers
    /// hear a goodbye.
    pub fn suspend(&mut self) {
        self.secure.links.close();
        let sealing_key = self
            .secure
            .secured
            .as_ref()
            .and_then(|secured| secured.sealing_key.clone());
        let Some(key) = sealing_key else {
            return;
        };
        for listener in self.secure.listeners() {
            for id in self.secure.associations.ids(listener) {
                let Some(devices) = self.secure.devices(listener) else {
                    continue;
                };
                if let Some(exported) = devices.server.suspend(id, &key) {
                    let sealed = devices.placed(&exported);
                    self.exported(&exported, sealed);
                }
            }
        }
    }
}
