//! Microseconds of one core for a handshake and for a record pair, without a network: `bench [SECONDS]`.
//!
//! A handshake, full or resumed, is the work of both ends, and of the server alone, from the first hello to both being established. A
//! record pair is 30 bytes in and 1024 bytes out at the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dtls::{
    Answer, Association, AssociationId, Client, Config, ConnectionIds, Handler, Identity, Instant,
    PreSharedKey, PskKeys, SealingKey, Secret, Server, SigningKey, Suite, SystemRandom,
};

/// CPU time of this thread.
#[derive(Clone, Copy)]
struct Clock(Duration);

impl Clock {
    fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
        Self(Duration::new(seconds, nanos))
    }

    fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

struct Keys {
    last: Option<AssociationId>,
    bytes: usize,
}

impl Handler for Keys {
    fn psk(&mut self, _identity: &[u8]) -> Answer<PskKeys> {
        Answer::Known(PskKeys::new(Secret::new(b"0123456789abcdef".to_vec())))
    }

    fn peer(&mut self, _identity: &Identity, _der: &[u8]) -> Answer<()> {
        Answer::Known(())
    }

    fn unix_time(&mut self) -> u64 {
        1_800_000_000
    }

    fn datagram(&mut self, from: &Association<'_>, payload: &[u8]) {
        self.last = Some(from.id);
        self.bytes += payload.len();
    }
}

struct Pair {
    server: Server,
    handler: Keys,
    /// Time spent in the server.
    spent: Duration,
    count: u32,
}

fn address(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 5684))
}

impl Pair {
    fn new(config: &Arc<Config>) -> Self {
        Self {
            server: Server::new(Arc::clone(config), Box::new(SystemRandom)),
            handler: Keys { last: None, bytes: 0 },
            spent: Duration::ZERO,
            count: 0,
        }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(1_000_000 + u64::from(self.count) * 1000)
    }

    /// Carries datagrams to and fro until both are silent.
    fn carry(&mut self, client: &mut Client, from: SocketAddr) {
        let (now, server_address) = (self.now(), address(0));
        loop {
            let mut silent = true;
            while let Some(transmit) = client.poll_transmit() {
                silent = false;
                let start = Clock::now();
                self.server
                    .receive_datagram(from, transmit.datagram, now, &mut self.handler);
                self.spent += start.elapsed();
            }
            while let Some(transmit) = self.server.poll_transmit() {
                silent = false;
                client.receive_datagram(server_address, transmit.datagram, now, &mut self.handler);
            }
            if silent {
                return;
            }
        }
    }

    fn shake_hands(&mut self, client: &Arc<Config>) -> Client {
        self.count += 1;
        let from = address(self.count);
        let mut client = Client::new(Arc::clone(client), Box::new(SystemRandom));
        client
            .connect(address(0), self.now(), &mut self.handler)
            .expect("credentials");
        self.carry(&mut client, from);
        assert!(client.is_established());
        while self.server.poll_event().is_some() {}
        client
    }
}

fn micros(span: Duration, count: u32) -> f64 {
    span.as_secs_f64() * 1e6 / f64::from(count)
}

fn config(suite: Suite, cid: bool) -> Config {
    Config {
        suites: vec![suite],
        psk: Some(PreSharedKey {
            identity: b"urn:dev:0001".to_vec(),
            key: Secret::new(b"0123456789abcdef".to_vec()),
        }),
        raw_public_key: SigningKey::generate_pkcs8()
            .and_then(|key| SigningKey::from_pkcs8(&key))
            .map(Arc::new),
        accept_raw_public_keys: true,
        connection_ids: cid.then_some(ConnectionIds {
            length: 8,
            node: None,
        }),
        key_operations_per_second: u32::MAX,
        key_operations_per_second_per_prefix: u32::MAX,
        ..Config::default()
    }
}

fn handshakes(suite: Suite, cid: bool, span: Duration) {
    let config = Arc::new(config(suite, cid));
    let mut pair = Pair::new(&config);
    let start = Clock::now();
    while start.elapsed() < span {
        pair.shake_hands(&config);
    }
    println!(
        "{:42} cid {:5}  {:8.2} µs both ends  {:8.2} µs server",
        suite.as_str(),
        cid,
        micros(start.elapsed(), pair.count),
        micros(pair.spent, pair.count)
    );
}

fn resumptions(suite: Suite, span: Duration) {
    let config = Arc::new(config(suite, true));
    let mut pair = Pair::new(&config);
    let mut client = pair.shake_hands(&config);
    let from = address(pair.count);
    let (mut count, start) = (0, Clock::now());
    pair.spent = Duration::ZERO;
    while start.elapsed() < span {
        let now = pair.now();
        client
            .connect(address(0), now, &mut pair.handler)
            .expect("credentials");
        pair.carry(&mut client, from);
        while pair.server.poll_event().is_some() {}
        while client.poll_event().is_some() {}
        count += 1;
    }
    assert_eq!(pair.server.statistics().resumed, u64::from(count));
    println!(
        "{:42} resumed    {:8.2} µs both ends  {:8.2} µs server",
        suite.as_str(),
        micros(start.elapsed(), count),
        micros(pair.spent, count)
    );
}

fn records(suite: Suite, cid: bool, span: Duration) {
    let config = Arc::new(config(suite, cid));
    let mut pair = Pair::new(&config);
    let mut client = pair.shake_hands(&config);
    let from = address(pair.count);
    let (request, answer) = ([7; 30], [8; 1024]);
    client.send(&request).expect("established");
    pair.carry(&mut client, from);
    let association = pair.handler.last.expect("received");
    let (mut count, mut spent) = (0, Duration::ZERO);
    let begin = Clock::now();
    while begin.elapsed() < span {
        // The clock is read around a batch, as it costs as much as a record.
        let requests: Vec<_> = (0..64)
            .map(|_| {
                client.send(&request).expect("established");
                client.poll_transmit().expect("sent").datagram.to_vec()
            })
            .collect();
        let start = Clock::now();
        for request in &requests {
            pair.server
                .receive_datagram(from, request, pair.now(), &mut pair.handler);
            pair.server.send(association, &answer).expect("established");
            pair.server.sent(1);
        }
        spent += start.elapsed();
        count += 64;
        if count % (1 << 22) == 0 {
            break;
        }
    }
    println!(
        "{:42} cid {:5}  {:8.3} µs record pair",
        suite.as_str(),
        cid,
        micros(spent, count)
    );
}

fn restores(span: Duration) {
    let config = Arc::new(config(Suite::PskCcm8, true));
    let mut pair = Pair::new(&config);
    let mut client = pair.shake_hands(&config);
    client.send(b"x").expect("established");
    pair.carry(&mut client, address(1));
    let mut association = pair.handler.last.expect("received");
    let key = SealingKey::new([7; 32]);
    let (mut count, begin) = (0, Clock::now());
    let mut spent = Duration::ZERO;
    while begin.elapsed() < span {
        let start = Clock::now();
        let row = pair.server.suspend(association, &key).expect("there");
        let generation = row.generation + 1;
        let now = pair.now();
        association = pair
            .server
            .import(&row.sealed, row.record, generation, &key, now)
            .expect("claimed");
        spent += start.elapsed();
        count += 1;
    }
    println!("export and import {:45.2} µs", micros(spent, count));
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    pages.unwrap_or(0) * u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

fn memory() {
    const SESSIONS: u32 = 50_000;
    let base = config(Suite::PskCcm8, true);
    let mut pair = Pair::new(&Arc::new(base.clone()));
    let before = resident();
    for number in 0..SESSIONS {
        let identity = format!("urn:imei:{number:015}").into_bytes();
        let key = Secret::new(b"0123456789abcdef".to_vec());
        let own = Config {
            psk: Some(PreSharedKey { identity, key }),
            ..base.clone()
        };
        let mut client = pair.shake_hands(&Arc::new(own));
        client.send(b"x").expect("established");
        pair.carry(&mut client, address(pair.count));
    }
    assert_eq!(pair.server.statistics().sessions, SESSIONS as usize);
    let bytes = resident().saturating_sub(before) / u64::from(SESSIONS);
    println!("memory of an association {bytes:38} bytes resident");
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|word| word.parse().ok());
    let span = Duration::from_secs_f64(seconds.unwrap_or(2.0));
    for cid in [true, false] {
        handshakes(Suite::PskCcm8, cid, span);
        handshakes(Suite::EcdheEcdsaCcm8, cid, span);
    }
    handshakes(Suite::EcdhePskGcm, true, span);
    resumptions(Suite::PskCcm8, span);
    resumptions(Suite::EcdheEcdsaCcm8, span);
    for suite in [Suite::PskCcm8, Suite::PskCcm, Suite::PskGcm, Suite::PskCbc] {
        records(suite, true, span);
    }
    records(Suite::PskCcm8, false, span);
    restores(span);
    memory();
}
