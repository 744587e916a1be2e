//! The crate `dimpl` in the same process: an independent DTLS 1.2, in either role, a hundred times over, as faults
//! of cryptography that depend on lengths show only then.

mod common;

use std::sync::Arc;
use std::time::Instant as Clock;

use common::network::{client_address, server_address};
use common::{IDENTITY, KEY, Keeper, Seeded, arc, psk_config};
use dimpl::crypto::Dtls12CipherSuite;
use dimpl::{Dtls, Output, PskResolver};
use dtls::{Client, Config, Event, Instant, Server};

const TIMES: u64 = 100;

struct Resolver;

impl PskResolver for Resolver {
    fn resolve(&self, identity: &[u8]) -> Option<Vec<u8>> {
        (identity == IDENTITY).then(|| KEY.to_vec())
    }
}

/// Its end, for the suite that is mandatory in LwM2M.
fn theirs(is_client: bool) -> Dtls {
    let mut provider = dimpl::Config::default().crypto_provider().clone();
    let mut suites = provider.cipher_suites.iter().copied();
    let suite = suites
        .find(|suite| suite.suite() == Dtls12CipherSuite::PSK_AES128_CCM_8)
        .expect("it has the suite");
    provider.cipher_suites = Box::leak(Box::new([suite]));
    let builder = dimpl::Config::builder().with_crypto_provider(provider);
    let builder = if is_client {
        builder.with_psk_client(IDENTITY.to_vec(), Arc::new(Resolver))
    } else {
        builder.with_psk_server(Some(b"hint".to_vec()), Arc::new(Resolver))
    };
    let mut dtls = Dtls::new_12_psk(Arc::new(builder.build().expect("settings")), Clock::now());
    dtls.set_active(is_client);
    dtls.handle_timeout(Clock::now()).expect("begun");
    dtls
}

/// What it has to send, and what it has received.
fn drain(dtls: &mut Dtls) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut packets, mut received) = (Vec::new(), Vec::new());
    let mut buf = vec![0; 4096];
    loop {
        match dtls.poll_output(&mut buf) {
            Output::Packet(packet) => packets.push(packet.to_vec()),
            Output::ApplicationData(data) => received.push(data.to_vec()),
            Output::Timeout(_) => return (packets, received),
            _ => {}
        }
    }
}

fn payload(seed: u64) -> Vec<u8> {
    vec![7; usize::try_from(1 + seed).expect("small")]
}

fn config(seed: u64) -> Config {
    Config {
        // It has no connection ids: an offer must do no harm.
        connection_ids: psk_config().connection_ids.filter(|_| seed.is_multiple_of(2)),
        ..psk_config()
    }
}

#[test]
fn its_client_with_our_server() {
    for seed in 0..TIMES {
        let mut client = theirs(true);
        let mut server = Server::new(arc(&config(seed)), Box::new(Seeded(seed)));
        let mut handler = Keeper::new();
        let (mut sent, mut answered) = (false, Vec::new());
        for round in 0..10 {
            let now = Instant::from_micros(1_000_000 + round);
            let (packets, received) = drain(&mut client);
            answered.extend(received);
            for packet in packets {
                server.receive_datagram(client_address(), &packet, now, &mut handler);
            }
            if let Some((association, payload)) = handler.received.pop() {
                server.send(association, &payload).expect("established");
            }
            while let Some(transmit) = server.poll_transmit() {
                client.handle_packet(transmit.datagram).expect("taken");
            }
            if server.statistics().established == 1 && !sent {
                sent = true;
                // Its finished has come out of the queue first.
                let (packets, _) = drain(&mut client);
                assert!(packets.is_empty());
                client.send_application_data(&payload(seed)).expect("connected");
            }
        }
        assert_eq!(answered, [payload(seed)], "seed {seed}");
    }
}

#[test]
fn our_client_with_its_server() {
    for seed in 0..TIMES {
        let mut server = theirs(false);
        let mut client = Client::new(arc(&config(seed)), Box::new(Seeded(seed)));
        let mut handler = Keeper::new();
        let mut echoed = false;
        for round in 0..10 {
            let now = Instant::from_micros(1_000_000 + round);
            if round == 0 {
                client
                    .connect(server_address(), now, &mut handler)
                    .expect("credentials");
            }
            while let Some(transmit) = client.poll_transmit() {
                server.handle_packet(transmit.datagram).expect("taken");
            }
            let (packets, received) = drain(&mut server);
            for packet in packets {
                client.receive_datagram(server_address(), &packet, now, &mut handler);
            }
            for data in received {
                assert_eq!(data, payload(seed), "seed {seed}");
                server.send_application_data(&data).expect("connected");
                echoed = true;
            }
            if let Some(Event::Established { .. }) = client.poll_event() {
                client.send(&payload(seed)).expect("established");
            }
        }
        assert!(echoed, "seed {seed}");
        assert_eq!(handler.payloads(), [payload(seed)], "seed {seed}");
    }
}
