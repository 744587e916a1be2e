//! The core with devices that speak DTLS: what they, Python and restarts may do to each other.

use super::*;
use crate::action::SecurityAction;
use crate::event::{SecurityEvent, SessionExport};
use crate::secure::{Devices, Gate, Outgoing, Place};
use crate::security::Security;
use crate::settings::Settings;
use coap::{Code, Encoder, Kind, Message, Response, Token, number};
use dtls::{
    Answer, Association, Client, Handler, Identity, PreSharedKey, PskKeys, SealingKey, Server, SystemRandom,
};
use std::net::SocketAddr;
use zeroize::Zeroizing;

const KEY: [u8; 16] = [7; 16];
const SEALING: [u8; 32] = [3; 32];

fn server_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 254], 5684))
}

fn device_address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn security() -> Security {
    Security {
        sealing_key: Some(Zeroizing::new(SEALING.to_vec())),
        ..Security::default()
    }
}

/// What a device hears.
#[derive(Default)]
struct Heard(Vec<Vec<u8>>);

impl Handler for Heard {
    fn psk(&mut self, _: &[u8]) -> Answer<PskKeys> {
        Answer::Unknown
    }

    fn peer(&mut self, _: &Identity, _: &[u8]) -> Answer<()> {
        Answer::Unknown
    }

    fn unix_time(&mut self) -> u64 {
        0
    }

    fn datagram(&mut self, _: &Association<'_>, payload: &[u8]) {
        self.0.push(payload.to_vec());
    }
}

struct Device {
    client: Client,
    address: SocketAddr,
    heard: Heard,
    mid: u16,
}

impl Device {
    fn new(port: u16, name: &str) -> Self {
        let psk = PreSharedKey {
            identity: name.into(),
            key: Zeroizing::new(KEY.to_vec()),
        };
        let config = dtls::Config {
            psk: Some(psk),
            ..dtls::Config::default()
        };
        Self {
            client: Client::new(Arc::new(config), Box::new(SystemRandom)),
            address: device_address(port),
            heard: Heard::default(),
            mid: 0,
        }
    }

    /// Sends a request; `Rig::pump` brings it over.
    fn ask(&mut self, code: Code, path: &[&str]) {
        self.mid += 1;
        self.repeat(code, path);
    }

    /// Sends the same request again.
    fn repeat(&mut self, code: Code, path: &[&str]) {
        let mut datagram = Vec::new();
        let token = Token::new(&[9]).unwrap();
        let mut encoder = Encoder::new(&mut datagram, Kind::Confirmable, code, self.mid, token);
        encoder.each(number::URI_PATH, path);
        self.client.send(&datagram).unwrap();
    }

    /// The codes of what has been heard.
    fn codes(&mut self) -> Vec<Code> {
        let heard = std::mem::take(&mut self.heard.0);
        heard
            .iter()
            .map(|each| Message::parse(each).unwrap().code)
            .collect()
    }
}

struct Rig {
    core: Core,
    shared: Arc<Shared>,
    now: Instant,
    /// What Python is told.
    told: Vec<SecurityEvent>,
    others: Vec<Event>,
    /// Datagrams to devices that have not been at the pump since.
    mail: Vec<(SocketAddr, Vec<u8>)>,
}

impl Rig {
    fn new(settings: &Settings) -> Self {
        Self::restored(settings, &[])
    }

    /// With these stored associations: row, claimed generation, export.
    fn restored(settings: &Settings, rows: &[(u64, u64, Vec<u8>)]) -> Self {
        let checked = settings.check().unwrap();
        let secured = security().check(&checked).unwrap();
        let shared = Arc::new(Shared::new(checked.max_actions).unwrap());
        let mut core = Core::new(checked, 1, &shared);
        let mut server = Server::new(Arc::clone(&secured.server), Box::new(SystemRandom));
        let now = Instant::from_micros(1_000_000);
        let key = SealingKey::new(SEALING);
        let restored: Vec<_> = rows
            .iter()
            .map(|(record, generation, export)| {
                let (_, sealed) = Place::split(export).unwrap();
                (
                    server.import(sealed, *record, *generation, &key, now).unwrap(),
                    *record,
                )
            })
            .collect();
        core.act(Action::Security(SecurityAction::Secure(Box::new(secured))), now);
        let devices = Devices::new(server, server_address());
        core.open(Gate::Devices(Box::new(devices)), &restored);
        Self {
            core,
            shared,
            now,
            told: Vec::new(),
            others: Vec::new(),
            mail: Vec::new(),
        }
    }

    /// Takes what Python is to hear.
    fn listen(&mut self) {
        self.core.reporter.publish();
        for event in self.shared.drain(usize::MAX) {
            match event {
                Event::Security(event) => self.told.push(event),
                other => self.others.push(other),
            }
        }
    }

    /// Lets datagrams go to and fro between the engine and a device until there are none.
    fn pump(&mut self, device: &mut Device) {
        loop {
            let mut sent = Vec::new();
            while let Some(transmit) = device.client.poll_transmit() {
                sent.push(transmit.datagram.to_vec());
            }
            for datagram in &sent {
                self.core.inbound(0, device.address, datagram, self.now);
            }
            let fresh = self.outgoing();
            self.mail.extend(fresh);
            let (own, others): (Vec<_>, _) = std::mem::take(&mut self.mail)
                .into_iter()
                .partition(|(to, _)| *to == device.address);
            self.mail = others;
            for (_, datagram) in &own {
                device
                    .client
                    .receive_datagram(server_address(), datagram, self.now, &mut device.heard);
            }
            if sent.is_empty() && own.is_empty() {
                return;
            }
        }
    }

    fn outgoing(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut count = 0;
        for transmit in self.core.stack.transmits() {
            self.core.secure.send(transmit.peer, transmit.datagram, self.now);
            count += 1;
        }
        self.core.stack.sent(count);
        self.core.sent(self.now);
        let mut out = Vec::new();
        self.core.secure.transmit(|_, outgoing| {
            let Outgoing::Devices(server) = outgoing else {
                return 0;
            };
            let before = out.len();
            out.extend(
                server
                    .transmits()
                    .map(|each| (each.address, each.datagram.to_vec())),
            );
            out.len() - before
        });
        out
    }

    /// A device with an association; Python knows its key.
    fn connected(&mut self, port: u16, name: &str) -> Device {
        let mut device = Device::new(port, name);
        device
            .client
            .connect(server_address(), self.now, &mut device.heard)
            .unwrap();
        self.pump(&mut device);
        self.listen();
        while let Some(handshake) = self.told.iter().find_map(|event| match event {
            SecurityEvent::LookUp { handshake, .. } => Some(*handshake),
            _ => None,
        }) {
            self.told.retain(
                |event| !matches!(event, SecurityEvent::LookUp { handshake: of, .. } if *of == handshake),
            );
            let keys = vec![Zeroizing::new(KEY.to_vec())];
            self.act(SecurityAction::Psk { handshake, keys });
            self.pump(&mut device);
            self.listen();
        }
        assert!(device.client.is_established());
        device
    }

    fn act(&mut self, action: SecurityAction) {
        self.core.act(Action::Security(action), self.now);
    }

    /// The latest export, as a claim makes it.
    fn claimed(&mut self) -> (u64, u64, Vec<u8>) {
        self.listen();
        let latest = self.exports().last().unwrap();
        (latest.record, latest.generation + 1, latest.sealed.clone())
    }

    fn exports(&self) -> impl Iterator<Item = &SessionExport> {
        let exports = self.told.iter().filter_map(|event| match event {
            SecurityEvent::SessionExports(exports) => Some(exports),
            _ => None,
        });
        exports.flatten()
    }

    fn respond_all(&mut self, code: Code) {
        self.listen();
        for event in std::mem::take(&mut self.others) {
            if let Event::Request { exchange, .. } = event {
                let exchange = coap::Exchange(exchange);
                let response = Box::new(Response::new(code));
                self.core.act(Action::Respond { exchange, response }, self.now);
            }
        }
    }

    fn statistic(&self, name: &str) -> u64 {
        let mut statistics = Vec::new();
        self.core.statistics(&mut statistics);
        statistics.iter().find(|(key, _)| *key == name).unwrap().1
    }

    fn keep(&mut self, location: &str, name: &str) {
        let identity = crate::identity::text(&Identity::Psk(name.as_bytes().into()));
        let owner = crate::key::Principal::of_identity(crate::identity::hash(&identity));
        let location = location.to_owned();
        self.core.act(Action::Keep { location, owner }, self.now);
    }
}

#[test]
fn an_address_that_moves_keeps_its_registration_and_is_answered_there() {
    let mut rig = Rig::new(&Settings::default());
    let mut device = rig.connected(1, "dev");
    rig.keep("x1", "dev");
    for port in [1, 2, 3] {
        device.address = device_address(port);
        device.ask(Code::POST, &["rd", "x1"]);
        rig.pump(&mut device);
        assert_eq!(device.codes(), [Code::CHANGED]);
    }
    rig.listen();
    assert!(rig.others.is_empty());
}

#[test]
fn after_a_crash_a_device_is_asked_before_it_is_believed() {
    let mut before = Rig::new(&Settings::default());
    let mut device = before.connected(1, "dev");
    device.ask(Code::GET, &["x"]);
    before.pump(&mut device);
    let row = before.claimed();
    let mut rig = Rig::restored(&Settings::default(), &[row]);
    rig.keep("x1", "dev");
    device.ask(Code::POST, &["rd", "x1"]);
    rig.pump(&mut device);
    // It is not served, but asked for something with a token that nobody could have known.
    let [question] = &std::mem::take(&mut device.heard.0)[..] else {
        panic!("one question was to come");
    };
    let question = Message::parse(question).unwrap();
    assert_eq!(
        (question.code, question.kind, question.token.as_bytes().len()),
        (Code::GET, Kind::Confirmable, 8)
    );
    assert_eq!(rig.statistic("updates_answered"), 0);
    // What is sent again meanwhile is not served either, and no second question comes at once.
    device.repeat(Code::POST, &["rd", "x1"]);
    rig.pump(&mut device);
    assert_eq!(device.codes(), []);
    let mut answer = Vec::new();
    Encoder::new(
        &mut answer,
        Kind::Acknowledgement,
        Code::NOT_FOUND,
        question.mid,
        question.token,
    );
    device.client.send(&answer).unwrap();
    device.repeat(Code::POST, &["rd", "x1"]);
    rig.pump(&mut device);
    assert_eq!(device.codes(), [Code::CHANGED]);
    assert_eq!(rig.statistic("updates_answered"), 1);
}

#[test]
fn a_replay_from_before_a_crash_is_never_served() {
    let mut before = Rig::new(&Settings::default());
    let mut device = before.connected(1, "dev");
    device.ask(Code::POST, &["rd"]);
    let recorded = device.client.poll_transmit().unwrap().datagram.to_vec();
    before.core.inbound(0, device.address, &recorded, before.now);
    let row = before.claimed();
    let mut rig = Rig::restored(&Settings::default(), &[row]);
    for _ in 0..3 {
        rig.core.inbound(0, device_address(66), &recorded, rig.now);
    }
    rig.listen();
    assert!(rig.others.is_empty());
}

#[test]
fn after_a_clean_stop_a_device_is_served_at_once() {
    let mut before = Rig::new(&Settings::default());
    let mut device = before.connected(1, "dev");
    before.core.suspend();
    let row = before.claimed();
    let mut rig = Rig::restored(&Settings::default(), &[row]);
    assert_eq!(rig.statistic("dtls_sessions"), 1);
    device.address = device_address(9);
    device.ask(Code::GET, &["x"]);
    rig.pump(&mut device);
    rig.respond_all(Code::CONTENT);
    rig.pump(&mut device);
    assert_eq!(device.codes(), [Code::CONTENT]);
}

#[test]
fn half_of_the_reserved_numbers_used_asks_for_another_export() {
    let mut rig = Rig::new(&Settings::default());
    let mut device = rig.connected(1, "dev");
    rig.keep("x1", "dev");
    rig.told.clear();
    for _ in 0..(1 << 15) + 8 {
        device.ask(Code::POST, &["rd", "x1"]);
        rig.pump(&mut device);
        // Message IDs come round in this time; a real device takes longer.
        rig.now = rig.now + Duration::from_millis(10);
    }
    rig.listen();
    assert_eq!(rig.exports().count(), 1);
}

#[test]
fn revoking_fails_what_waits_and_leaves_nothing() {
    let mut rig = Rig::new(&Settings::default());
    let mut device = rig.connected(1, "dev");
    let mut other = rig.connected(2, "other");
    let name: Arc<str> = "psk:dev".into();
    let to = To::Identity {
        hash: crate::identity::hash(&name),
        address: device.address,
        name,
    };
    let request = Box::new(coap::Request::new(Code::GET, &["3"]));
    let delivery = coap::Delivery::default();
    let start = Action::Request {
        handle: 5,
        to,
        request,
        delivery,
    };
    rig.core.act(start, rig.now);
    rig.pump(&mut device);
    rig.told.clear();
    rig.act(SecurityAction::Revoke(Identity::Psk((*b"dev").into())));
    rig.pump(&mut device);
    rig.listen();
    assert!(!device.client.is_established());
    let [
        Event::Failure {
            handle: 5,
            peer,
            reason,
            ..
        },
    ] = &rig.others[..]
    else {
        panic!("one failure was to come: {:?}", rig.others);
    };
    let claim = peer.claim.as_ref().map(|claim| claim.text().to_string());
    assert_eq!((*reason, claim.as_deref()), ("peer-gone", Some("psk:dev")));
    assert!(matches!(
        rig.told[..],
        [SecurityEvent::Ended { .. }, SecurityEvent::SessionGone { .. }]
    ));
    assert_eq!(
        (rig.statistic("dtls_sessions"), rig.statistic("dtls_keys")),
        (1, 1)
    );
    other.ask(Code::GET, &["x"]);
    rig.pump(&mut other);
    rig.respond_all(Code::CONTENT);
    rig.pump(&mut other);
    assert_eq!(other.codes(), [Code::CONTENT]);
}

#[test]
fn a_flood_of_hellos_from_forged_addresses_leaves_nothing_behind() {
    let mut rig = Rig::new(&Settings::default());
    let mut device = rig.connected(1, "dev");
    let mut attacker = Device::new(2, "x");
    attacker
        .client
        .connect(server_address(), rig.now, &mut attacker.heard)
        .unwrap();
    let hello = attacker.client.poll_transmit().unwrap().datagram.to_vec();
    for number in 0..20_000_u32 {
        let address = SocketAddr::from((number.to_be_bytes(), 1000));
        rig.core.inbound(0, address, &hello, rig.now);
        rig.outgoing();
    }
    rig.listen();
    assert_eq!(
        (rig.statistic("dtls_half_open"), rig.statistic("dtls_cookies")),
        (0, 20_001)
    );
    device.ask(Code::GET, &["x"]);
    rig.pump(&mut device);
    rig.respond_all(Code::CONTENT);
    rig.pump(&mut device);
    assert_eq!(device.codes(), [Code::CONTENT]);
}

#[test]
fn while_python_stalls_requests_get_5_03_and_no_further_handshake_asks() {
    let mut rig = Rig::new(&Settings {
        max_events: 4,
        ..Settings::default()
    });
    let mut device = rig.connected(1, "dev");
    for _ in 0..4 {
        device.ask(Code::GET, &["x"]);
        rig.pump(&mut device);
    }
    assert_eq!(device.codes(), []);
    device.ask(Code::GET, &["x"]);
    rig.pump(&mut device);
    assert_eq!(device.codes(), [Code::SERVICE_UNAVAILABLE]);
    for port in 10..20 {
        let mut stranger = Device::new(port, &format!("stranger-{port}"));
        stranger
            .client
            .connect(server_address(), rig.now, &mut stranger.heard)
            .unwrap();
        rig.pump(&mut stranger);
    }
    assert!(rig.statistic("dtls_shed") > 0);
    assert_eq!(rig.statistic("dtls_half_open"), 10);
    rig.listen();
    assert_eq!(
        rig.told
            .iter()
            .filter(|event| matches!(event, SecurityEvent::LookUp { .. }))
            .count(),
        4
    );
}

#[test]
fn a_panic_costs_one_association_its_state_and_nobody_else() {
    let mut rig = Rig::new(&Settings::default());
    let (mut one, mut two) = (rig.connected(1, "one"), rig.connected(2, "two"));
    two.ask(Code::GET, &["x"]);
    rig.pump(&mut two);
    one.ask(Code::GET, &["panic"]);
    rig.pump(&mut one);
    assert_eq!((rig.statistic("panics"), rig.statistic("dtls_sessions")), (1, 2));
    one.ask(Code::GET, &["x"]);
    rig.pump(&mut one);
    rig.respond_all(Code::CONTENT);
    rig.pump(&mut one);
    rig.pump(&mut two);
    assert_eq!(
        (one.codes(), two.codes()),
        (vec![Code::CONTENT], vec![Code::CONTENT])
    );
}
