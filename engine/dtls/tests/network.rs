//! Whole handshakes over a link with loss, duplication, reordering and small datagrams: each completes, or both
//! sides give up in their time; keys agree; nothing is left behind.

mod common;

use std::time::Duration;

use common::network::{Link, Network, client_address};
use common::wire::records;
use common::{Seeded, psk_config};
use dtls::{Config, Event, Suite};

fn links() -> impl Iterator<Item = Link> {
    [(0, 0, 1), (100, 100, 50), (250, 200, 400), (400, 300, 1500)]
        .into_iter()
        .map(|(loss, duplication, millis)| Link {
            loss,
            duplication,
            delay: Duration::from_millis(millis),
        })
}

fn config(seed: u64, suite: Suite) -> Config {
    Config {
        suites: vec![suite],
        initial_timeout: Duration::from_secs(1 + seed % 3),
        mtu: [256, 300, 400, 576][usize::try_from(seed % 4).expect("small")],
        ..psk_config()
    }
}

#[test]
fn a_handshake_completes_or_both_sides_give_up_in_time() {
    let (mut complete, mut total) = (0, 0);
    for link in links() {
        for seed in 0..400 {
            let suite = [Suite::PskCcm8, Suite::EcdhePskGcm][usize::from(seed % 8 == 0)];
            let config = config(seed, suite);
            let mut network = Network::new(seed * 7919 + 1, link, &config, &config);
            network.connect();
            network.run(Duration::from_secs(600));
            let (client, server) = network.established();
            total += 1;
            assert!(
                server >= client,
                "seed {seed} {link:?}: the server finishes first"
            );
            assert!(
                network
                    .log
                    .iter()
                    .all(|(_, datagram)| datagram.len() <= config.mtu)
            );
            network.assert_no_half_open();
            if client == 1 {
                complete += 1;
                assert!(
                    network
                        .server_handler
                        .masters
                        .contains(&network.client_handler.masters[0]),
                    "seed {seed} {link:?}"
                );
                network.link = Link::default();
                network.exchange();
            } else {
                let failed = |events: &[Event]| {
                    events.iter().any(|event| {
                        matches!(
                            event,
                            Event::Failed {
                                reason: "timeout",
                                ..
                            }
                        )
                    })
                };
                assert!(failed(&network.client_events), "seed {seed} {link:?}");
            }
        }
    }
    assert!(complete * 100 > total * 97, "{complete} of {total}");
}

#[test]
fn a_handshake_is_over_at_its_age_limit_on_a_dead_link() {
    let dead = Link {
        loss: 1000,
        ..Link::default()
    };
    let mut network = Network::new(1, dead, &psk_config(), &psk_config());
    network.connect();
    let start = network.now;
    network.run(Duration::from_secs(3600));
    assert!(matches!(
        network.client_events.as_slice(),
        [Event::Failed {
            reason: "timeout",
            ..
        }]
    ));
    // First sent, then after 9, 18, 36 and at most 60 s more.
    assert_eq!(network.log.len(), 4);
    assert!(network.now.since(start) >= Duration::from_secs(120));
}

/// Every order in which the records of a flight can come, at the client and at the server.
#[test]
fn every_permutation_of_a_flight_completes() {
    let config = Config {
        mtu: 128,
        suites: vec![Suite::EcdhePskCcm8],
        connection_ids: None,
        initial_timeout: Duration::from_secs(1),
        ..psk_config()
    };
    let mut tried = 0;
    for to_client in [true, false] {
        let mut order: Vec<usize> = Vec::new();
        loop {
            let mut network = Network::perfect(&config, &config);
            network.connect();
            let first = network.take_from_client();
            for datagram in &first {
                network.give_server(datagram);
            }
            let verify = network.take_from_server();
            for datagram in &verify {
                network.give_client(datagram);
            }
            let hello = network.take_from_client();
            for datagram in &hello {
                network.give_server(datagram);
            }
            let mut flight = records(&network.take_from_server());
            if !to_client {
                for datagram in &flight {
                    network.give_client(datagram);
                }
                flight = records(&network.take_from_client());
            }
            assert!((2..=8).contains(&flight.len()), "{}", flight.len());
            if order.is_empty() {
                order = (0..flight.len()).collect();
            }
            for at in &order {
                if to_client {
                    network.give_client(&flight[*at]);
                } else {
                    network.give_server(&flight[*at]);
                }
            }
            network.run(Duration::from_secs(30));
            assert_eq!(network.established(), (1, 1), "{order:?}");
            network.exchange();
            tried += 1;
            if !next_permutation(&mut order) {
                break;
            }
        }
    }
    assert!(tried >= 12, "{tried}");
}

fn next_permutation(order: &mut [usize]) -> bool {
    let Some(pivot) = order.windows(2).rposition(|pair| pair[0] < pair[1]) else {
        return false;
    };
    let swap = order
        .iter()
        .rposition(|at| *at > order[pivot])
        .expect("the next one");
    order.swap(pivot, swap);
    order[pivot + 1..].reverse();
    true
}

#[test]
fn a_peer_that_moves_is_followed_by_its_connection_id_and_a_late_record_does_not_move_it_back() {
    let mut network = Network::perfect(&psk_config(), &psk_config());
    network.shake_hands();
    network.client.send(b"late").expect("established");
    let late = network.take_from_client().remove(0);
    network.client_address = std::net::SocketAddr::from(([203, 0, 113, 9], 1234));
    network.exchange();
    let association = network.association();
    let moved = network.server_events.iter().filter_map(|event| match event {
        Event::Moved { from, to, .. } => Some((*from, *to)),
        _ => None,
    });
    assert_eq!(
        moved.collect::<Vec<_>>(),
        [(client_address(), network.client_address)]
    );
    let (now, new) = (network.now, network.client_address);
    network
        .server
        .receive_datagram(client_address(), &late, now, &mut network.server_handler);
    assert_eq!(
        network.server_handler.payloads().last().copied(),
        Some(b"late".as_slice())
    );
    assert_eq!(network.server.peer(association).expect("there").0, new);
}

#[test]
fn random_bytes_and_mangled_records_change_nothing() {
    let mut network = Network::perfect(&psk_config(), &psk_config());
    network.shake_hands();
    let log: Vec<_> = network.log.clone();
    let mut random = Seeded(99);
    for _ in 0..20_000 {
        let (to_server, mut datagram) =
            log[usize::try_from(random.below(log.len() as u64)).expect("small")].clone();
        for _ in 0..=random.below(3) {
            let at = usize::try_from(random.below(datagram.len() as u64)).expect("small");
            datagram[at] ^= u8::try_from(1 + random.below(255)).expect("a byte");
        }
        if random.chance(100) {
            datagram.truncate(usize::try_from(random.below(datagram.len() as u64)).expect("small"));
        }
        if to_server {
            network.give_server(&datagram);
        } else {
            network.give_client(&datagram);
        }
        network.take_from_client();
        network.take_from_server();
    }
    assert!(network.server_handler.received.is_empty());
    network.exchange();
}
