//! Invariant: whatever happens to the datagrams between a client and a server, and whatever else arrives, neither
//! panics or keeps more than its bounds; when both say that they are connected they have the same keys; and when time
//! has passed no handshake is left.

#![no_main]

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dtls::{
    Answer, Association, Client, Config, ConnectionIds, Event, Handler, HandshakeId, Identity, Instant,
    LookUp, PreSharedKey, PskKeys, Random, Secret, Server, SigningKey, Suite,
};
use libfuzzer_sys::fuzz_target;

/// Takes bytes off the input; zeros at its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }
}

/// The same numbers in every run.
struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(29).wrapping_add(71);
            *byte = self.0;
        }
        true
    }
}

#[derive(Default)]
struct Site {
    later: bool,
    masters: Vec<[u8; 48]>,
    received: usize,
}

fn keys() -> PskKeys {
    PskKeys {
        current: Secret::new(b"new key".to_vec()),
        former: Some(Secret::new(b"key".to_vec())),
    }
}

impl Handler for Site {
    fn psk(&mut self, identity: &[u8]) -> Answer<PskKeys> {
        if self.later {
            Answer::Later
        } else if identity == b"dev1" {
            Answer::Known(keys())
        } else {
            Answer::Unknown
        }
    }

    fn peer(&mut self, _identity: &Identity, _der: &[u8]) -> Answer<()> {
        if self.later {
            Answer::Later
        } else {
            Answer::Known(())
        }
    }

    fn unix_time(&mut self) -> u64 {
        1_800_000_000
    }

    fn datagram(&mut self, _from: &Association<'_>, _payload: &[u8]) {
        self.received += 1;
    }

    fn key_log(&mut self, _client_random: &[u8; 32], master: &[u8; 48]) {
        self.masters.push(*master);
    }
}

static KEY: LazyLock<Option<Arc<SigningKey>>> = LazyLock::new(|| {
    let pkcs8 = SigningKey::generate_pkcs8()?;
    SigningKey::from_pkcs8(&pkcs8).map(Arc::new)
});

fn config(suite: u8, cid: u8) -> Arc<Config> {
    let suites = [
        Suite::PskCcm8,
        Suite::PskGcm,
        Suite::EcdhePskCcm8,
        Suite::EcdheEcdsaCcm8,
        Suite::PskCbc,
        Suite::PskCcm8,
    ];
    let ids = [None, Some(0), Some(1), Some(8)];
    Arc::new(Config {
        suites: vec![suites[usize::from(suite & 3 | suite >> 2 & 4) % suites.len()]],
        psk: Some(PreSharedKey {
            identity: b"dev1".to_vec(),
            key: Secret::new(b"key".to_vec()),
        }),
        raw_public_key: KEY.clone(),
        accept_raw_public_keys: true,
        connection_ids: ids[usize::from(cid & 3)].map(|length| ConnectionIds { length, node: None }),
        initial_timeout: Duration::from_secs(1),
        mtu: if suite & 4 == 0 { 1200 } else { 200 },
        max_fragment_length: (suite & 8 != 0).then_some(512),
        max_half_open: 3,
        max_half_open_per_prefix: 2,
        max_reassembly: 4000,
        max_events: 50,
        max_output: 100_000,
        key_log: true,
        ..Config::default()
    })
}

fn client_address(port: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 4000 + u16::from(port & 3)))
}

struct World {
    client: Client,
    server: Server,
    sites: [Site; 2],
    now: Instant,
    /// Datagrams under way, and whether to the server.
    under_way: Vec<(bool, Vec<u8>)>,
    waiting: Vec<(HandshakeId, LookUp)>,
    connected: [bool; 2],
    port: u8,
}

impl World {
    fn collect(&mut self) {
        while let Some(transmit) = self.client.poll_transmit() {
            self.under_way.push((true, transmit.datagram.to_vec()));
        }
        while let Some(transmit) = self.server.poll_transmit() {
            self.under_way.push((false, transmit.datagram.to_vec()));
        }
        self.under_way.truncate(200);
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Established { .. } => self.connected[0] = true,
                Event::Closed { .. } => self.connected[0] = false,
                _ => {}
            }
        }
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Established { .. } => self.connected[1] = true,
                Event::LookUp {
                    handshake, look_up, ..
                } => self.waiting.push((handshake, look_up)),
                _ => {}
            }
        }
    }

    fn deliver(&mut self, to_server: bool, datagram: &[u8]) {
        let [own, site] = &mut self.sites;
        if to_server {
            let from = client_address(self.port);
            self.server.receive_datagram(from, datagram, self.now, site);
        } else {
            let from = SocketAddr::from(([192, 0, 2, 1], 5684));
            self.client.receive_datagram(from, datagram, self.now, own);
        }
        let statistics = self.server.statistics();
        assert!(statistics.half_open <= 3);
        assert!(statistics.reassembly_bytes <= 3 * 4000);
        self.collect();
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.client.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
        self.collect();
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        let next = (!self.under_way.is_empty()).then(|| {
            let at = usize::from(op >> 4) % self.under_way.len();
            self.under_way.remove(at)
        });
        match (op & 15, next) {
            (0..=4, Some((to_server, datagram))) => self.deliver(to_server, &datagram),
            (5..=8, Some((to_server, mut datagram))) => {
                for _ in 0..=op >> 6 {
                    let at = usize::from(input.byte()) | usize::from(input.byte() & 7) << 8;
                    let at = at % datagram.len();
                    datagram[at] ^= input.byte();
                }
                self.deliver(to_server, &datagram);
            }
            (9, Some((to_server, datagram))) => {
                self.under_way.push((to_server, datagram.clone()));
                self.deliver(to_server, &datagram);
            }
            (10, _) => self.deliver(op & 16 == 0, input.bytes()),
            (11, _) => self.pass(Duration::from_millis(u64::from(input.byte()) * 50)),
            (12, _) => {
                let payload = input.bytes();
                self.client.send(payload).ok();
                self.collect();
            }
            (13, _) => {
                for (handshake, look_up) in std::mem::take(&mut self.waiting) {
                    let site = &mut self.sites[1];
                    match look_up {
                        LookUp::Psk(_) => {
                            self.server.provide_psk(handshake, Some(&keys()), self.now, site);
                        }
                        LookUp::Peer { .. } => {
                            self.server
                                .provide_verdict(handshake, op & 16 == 0, self.now, site);
                        }
                    }
                }
                self.collect();
            }
            (14, _) if op & 16 == 0 => self.port = input.byte(),
            (14, _) => {
                // Another handshake, with a ticket if there is one.
                let server = SocketAddr::from(([192, 0, 2, 1], 5684));
                let started = self.client.connect(server, self.now, &mut self.sites[0]);
                assert!(started.is_ok());
                self.collect();
            }
            (15, _) => self.sites[1].later = op & 16 == 0,
            _ => {}
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (suite, cid) = (input.byte(), input.byte());
    let mut world = World {
        client: Client::new(config(suite, cid), Box::new(Counting(1))),
        server: Server::new(config(suite, cid >> 2), Box::new(Counting(2))),
        sites: [Site::default(), Site::default()],
        now: Instant::from_micros(1_000_000),
        under_way: Vec::new(),
        waiting: Vec::new(),
        connected: [false; 2],
        port: 0,
    };
    let server = SocketAddr::from(([192, 0, 2, 1], 5684));
    let started = world.client.connect(server, world.now, &mut world.sites[0]);
    assert!(started.is_ok());
    world.collect();
    for _ in 0..200 {
        if input.0.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    // From another port the server may have begun handshakes that came to nothing.
    if world.connected == [true; 2] {
        let [client, server] = &world.sites;
        assert!(
            client
                .masters
                .iter()
                .any(|master| server.masters.contains(master))
        );
    }
    for _ in 0..300 {
        world.pass(Duration::from_secs(2));
    }
    let left = world.server.statistics();
    assert_eq!(
        (left.half_open, left.half_open_index, left.reassembly_bytes),
        (0, 0, 0)
    );
    assert!(left.lingering == 0);
});
