//! Secured fleets and loads against a small server of the crate `dtls` on a socket.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dtls::{
    Answer, Association, AssociationId, CertifiedKey, Config, Event, Handler, Identity, PskKeys, Secret,
    Server, SigningKey, SystemRandom, Trust,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use simulator::{Credentials, Fleet, FleetOptions, Load, Security, derived_key};

const SECRET: &[u8] = b"a secret of the whole fleet";

/// Takes every key that the fleet derives, and every certificate that has a path.
#[derive(Default)]
struct Keeper {
    received: Vec<(AssociationId, Vec<u8>)>,
}

impl Handler for Keeper {
    fn psk(&mut self, identity: &[u8]) -> Answer<PskKeys> {
        let endpoint = std::str::from_utf8(identity).expect("a name");
        Answer::Known(PskKeys::new(derived_key(SECRET, endpoint)))
    }

    fn peer(&mut self, _: &Identity, _: &[u8]) -> Answer<()> {
        Answer::Known(())
    }

    fn unix_time(&mut self) -> u64 {
        1_800_000_000
    }

    fn datagram(&mut self, from: &Association<'_>, payload: &[u8]) {
        self.received.push((from.id, payload.to_vec()));
    }
}

/// A server in a thread: 2.01 to a Register, 2.04 to every other POST, 2.05 to a GET.
struct Peer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    hang_up: Arc<AtomicBool>,
    thread: Option<JoinHandle<(usize, u64)>>,
}

fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let message = coap::Message::parse(request).expect("CoAP");
    let path: Vec<_> = message.options.path().collect();
    let mut answer = Vec::new();
    let code = match (message.code, path.as_slice()) {
        (coap::Code::POST, ["rd"]) => coap::Code::CREATED,
        (coap::Code::POST, _) => coap::Code::CHANGED,
        (coap::Code::GET, _) => coap::Code::CONTENT,
        _ => return None,
    };
    let kind = coap::Kind::Acknowledgement;
    let mut encoder = coap::Encoder::new(&mut answer, kind, code, message.mid, message.token);
    if code == coap::Code::CREATED {
        encoder.option(coap::number::LOCATION_PATH, b"rd");
        encoder.option(coap::number::LOCATION_PATH, b"7");
    }
    Some(answer)
}

impl Peer {
    fn start(config: Config) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let wait = Duration::from_millis(5);
        socket.set_read_timeout(Some(wait)).expect("a timeout");
        let address = socket.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let hang_up = Arc::new(AtomicBool::new(false));
        let orders = [Arc::clone(&stop), Arc::clone(&hang_up)];
        let thread = std::thread::spawn(move || serve(&socket, config, &orders));
        Self {
            address,
            stop,
            hang_up,
            thread: Some(thread),
        }
    }

    /// Associations at the end, and handshakes completed.
    fn stop(mut self) -> (usize, u64) {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("running");
        thread.join().expect("no panic")
    }
}

fn serve(socket: &UdpSocket, config: Config, [stop, hang_up]: &[Arc<AtomicBool>; 2]) -> (usize, u64) {
    let start = Instant::now();
    let mut server = Server::new(Arc::new(config), Box::new(SystemRandom));
    let mut keeper = Keeper::default();
    let mut buffer = [0; 4096];
    let mut established = Vec::new();
    let mut handshakes = 0;
    while !stop.load(Ordering::SeqCst) {
        let received = socket.recv_from(&mut buffer).ok();
        let micros = u64::try_from(start.elapsed().as_micros()).expect("short");
        let now = coap::Instant::from_micros(1_000_000 + micros);
        if let Some((length, from)) = received {
            server.receive_datagram(from, &buffer[..length], now, &mut keeper);
        }
        server.handle_timeout(now);
        for (association, payload) in keeper.received.drain(..) {
            if let Some(answer) = answer(&payload) {
                server.send(association, &answer).expect("established");
            }
        }
        while let Some(event) = server.poll_event() {
            if let Event::Established { association, .. } = event {
                established.push(association);
                handshakes += 1;
            }
        }
        if hang_up.swap(false, Ordering::SeqCst) {
            for association in established.drain(..) {
                server.close(association);
            }
        }
        while let Some(transmit) = server.poll_transmit() {
            socket.send_to(transmit.datagram, transmit.address).expect("sent");
        }
    }
    (server.statistics().sessions, handshakes)
}

fn security(credentials: Credentials, connection_ids: bool) -> Arc<Security> {
    Arc::new(Security {
        credentials,
        connection_ids,
        handshake_timeout: Duration::from_secs(1),
    })
}

fn psk(connection_ids: bool) -> Arc<Security> {
    security(Credentials::Psk(Secret::new(SECRET.to_vec())), connection_ids)
}

fn key() -> Secret {
    SigningKey::generate_pkcs8().expect("a key")
}

fn fleet(server: SocketAddr, count: usize, security: Arc<Security>) -> Fleet {
    let options = FleetOptions {
        server,
        count,
        prefix: "sim-".into(),
        lifetime: 2,
        version: "1.0.0".into(),
        failing: 0.0,
        vanishing: 0.0,
        spread: Duration::from_millis(100),
        seed: 1,
        security: Some(security),
    };
    Fleet::new(&options).expect("sockets")
}

/// Lets the fleet live until the condition holds.
fn live(fleet: &mut Fleet, condition: impl Fn(simulator::Counts) -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition(fleet.counts()) {
        assert!(Instant::now() < end, "{:?}", fleet.counts());
        fleet.run(Duration::from_millis(20)).expect("running");
    }
}

#[test]
fn more_devices_than_sockets_register_and_update_over_connection_ids() {
    let peer = Peer::start(Config::default());
    let mut load = Load::new(peer.address, 5, Some(psk(true))).expect("sockets");
    let report = load.register(20, "load-", 300).expect("running");
    assert_eq!((report.answered, report.errors), (20, 0));
    let report = load.update(3).expect("running");
    assert_eq!((report.answered, report.errors), (60, 0));
    let report = load.get(&["small".into()], 0, 50).expect("running");
    assert_eq!((report.answered, report.errors), (50, 0));
    assert_eq!(peer.stop(), (20, 20));
}

#[test]
fn without_connection_ids_each_device_needs_a_socket() {
    let peer = Peer::start(Config::default());
    let mut load = Load::new(peer.address, 4, Some(psk(false))).expect("sockets");
    assert!(load.handshake(5, "load-").is_err());
    let report = load.handshake(4, "load-").expect("running");
    assert_eq!((report.answered, report.errors), (4, 0));
    assert_eq!(peer.stop(), (4, 4));
}

#[test]
fn raw_public_keys_prove_both_sides() {
    let (server, foreign) = (key(), key());
    let server_key = SigningKey::from_pkcs8(&server).expect("a key");
    let peer = Peer::start(Config {
        raw_public_key: Some(Arc::new(SigningKey::from_pkcs8(&server).expect("a key"))),
        accept_raw_public_keys: true,
        ..Config::default()
    });
    let raw = |pinned: &[u8]| {
        let keys = (0..6).map(|_| key()).collect();
        let server = pinned.to_vec();
        security(Credentials::RawPublicKeys { keys, server }, true)
    };
    let mut load = Load::new(peer.address, 6, Some(raw(server_key.public_key()))).expect("sockets");
    assert_eq!(load.handshake(6, "raw-").expect("running").answered, 6);
    let foreign = SigningKey::from_pkcs8(&foreign).expect("a key");
    let mut load = Load::new(peer.address, 2, Some(raw(foreign.public_key()))).expect("sockets");
    let report = load.handshake(2, "raw-").expect("running");
    assert_eq!((report.answered, report.errors), (0, 2));
    assert_eq!(load.failure(), Some("unknown-peer"));
    assert_eq!(peer.stop(), (6, 6));
}

#[test]
fn certificates_prove_both_sides() {
    let authority_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = params.self_signed(&authority_key).expect("signed");
    let issuer = Issuer::new(params, authority_key);
    let issue = |name: &str, usage| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        (vec![certificate.der().to_vec()], Secret::new(key.serialize_der()))
    };
    let trust = Trust::new(&[authority.der().to_vec()]).expect("a certificate");
    let (chain, key) = issue("server.example", ExtendedKeyUsagePurpose::ServerAuth);
    let key = SigningKey::from_pkcs8(&key).expect("a key");
    let peer = Peer::start(Config {
        certificate: Some(Arc::new(CertifiedKey::new(chain, key).expect("a pair"))),
        trust: Arc::new(trust.clone()),
        ..Config::default()
    });
    let device = |number| issue(&format!("x-{number:06}"), ExtendedKeyUsagePurpose::ClientAuth);
    let credentials = Credentials::Certificates {
        devices: (0..4).map(device).collect(),
        trust,
        server_name: Some("server.example".into()),
    };
    let mut load = Load::new(peer.address, 2, Some(security(credentials, true))).expect("sockets");
    let report = load.register(4, "x-", 300).expect("running");
    assert_eq!((report.answered, report.errors), (4, 0), "{:?}", load.failure());
    assert_eq!(peer.stop(), (4, 4));
}

#[test]
fn a_fleet_registers_updates_and_shakes_hands_anew_when_the_server_hangs_up() {
    let peer = Peer::start(Config::default());
    let mut fleet = fleet(peer.address, 30, psk(true));
    live(&mut fleet, |counts| {
        counts.registered == 30 && counts.updates >= 30
    });
    assert_eq!(fleet.counts().handshakes, 30);
    peer.hang_up.store(true, Ordering::SeqCst);
    live(&mut fleet, |counts| counts.handshakes == 60);
    let counts = fleet.counts();
    live(&mut fleet, |now| now.updates >= counts.updates + 30);
    assert_eq!((fleet.counts().refused, fleet.counts().registrations), (0, 30));
    assert_eq!(peer.stop(), (30, 60));
}
