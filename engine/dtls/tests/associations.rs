//! Established associations: what ends one, what replaces one, and what does neither.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::network::{Network, client_address, server_address};
use common::wire::{plain, records};
use common::{KEY, Keeper, Seeded, arc, psk_config};
use dtls::{
    Alert, AssociationId, Client, Config, Event, Identity, PreSharedKey, Reason, Secret, SendError,
    SigningKey, Suite,
};

fn plain_config() -> Config {
    Config {
        connection_ids: None,
        ..psk_config()
    }
}

fn with_identity(config: &Config, identity: &[u8]) -> Config {
    Config {
        psk: Some(PreSharedKey {
            identity: identity.to_vec(),
            key: Secret::new(KEY.to_vec()),
        }),
        ..config.clone()
    }
}

fn closed(events: &[Event]) -> Vec<(AssociationId, Reason)> {
    let closed = events.iter().filter_map(|event| match event {
        Event::Closed { association, reason } => Some((*association, *reason)),
        _ => None,
    });
    closed.collect()
}

/// Puts another client in the place of the network's, at the same address.
fn replace_client(network: &mut Network, config: &Config) -> Client {
    network.server_handler.keys.insert(b"dev2".to_vec(), KEY.to_vec());
    std::mem::replace(
        &mut network.client,
        Client::new(arc(config), Box::new(Seeded(77))),
    )
}

#[test]
fn the_old_association_lives_until_the_new_finished_verifies() {
    let config = plain_config();
    let mut network = Network::perfect(&config, &config);
    network.shake_hands();
    let old = network.association();
    let mut first = replace_client(&mut network, &with_identity(&config, b"dev2"));
    network.connect();
    for _ in 0..2 {
        for datagram in network.take_from_client() {
            network.give_server(&datagram);
        }
        for datagram in network.take_from_server() {
            network.give_client(&datagram);
        }
    }
    assert_eq!(network.server.statistics().half_open, 1);
    // Half way: the old keys work, both ways.
    std::mem::swap(&mut first, &mut network.client);
    network.client.send(b"old").expect("established");
    for datagram in network.take_from_client() {
        network.give_server(&datagram);
    }
    assert_eq!(network.server_handler.payloads(), [b"old"]);
    network.server.send(old, b"back").expect("established");
    for datagram in network.take_from_server() {
        network.give_client(&datagram);
    }
    assert_eq!(network.client_handler.payloads(), [b"back"]);
    // Now the new Finished: the old association gives way.
    std::mem::swap(&mut first, &mut network.client);
    network.run(Duration::from_secs(5));
    assert_eq!(closed(&network.server_events), [(old, Reason::Replaced)]);
    assert_eq!(network.server.send(old, b"x"), Err(SendError::Unknown));
    network.exchange();
    assert_eq!(network.server.statistics().sessions, 1);
}

#[test]
fn a_second_handshake_that_is_abandoned_leaves_the_old_keys_working() {
    let config = plain_config();
    let mut network = Network::perfect(&config, &config);
    network.shake_hands();
    let first = replace_client(&mut network, &config);
    network.connect();
    for _ in 0..2 {
        for datagram in network.take_from_client() {
            network.give_server(&datagram);
        }
        for datagram in network.take_from_server() {
            network.give_client(&datagram);
        }
    }
    network.client = first;
    network.run(Duration::from_secs(300));
    network.assert_no_half_open();
    network.exchange();
}

#[test]
fn an_address_that_belongs_to_somebody_else_now_ends_no_association_with_a_connection_id() {
    let config = psk_config();
    let mut network = Network::perfect(&config, &config);
    network.shake_hands();
    let old = network.association();
    let mut first = replace_client(&mut network, &with_identity(&plain_config(), b"dev2"));
    network.connect();
    network.run(Duration::from_secs(5));
    assert_eq!(network.server.statistics().sessions, 2);
    network.exchange();
    std::mem::swap(&mut first, &mut network.client);
    network.client_address = SocketAddr::from(([203, 0, 113, 1], 9));
    network.client.send(b"me").expect("established");
    network.run(Duration::from_secs(1));
    assert_eq!(
        network.server_handler.received.last(),
        Some(&(old, b"me".to_vec()))
    );
    assert!(closed(&network.server_events).is_empty());
}

fn port(number: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 1], number))
}

/// A network whose server has two associations of one identity, and the client of the first, which is at port 1.
fn two_of_one_identity(config: &Config) -> (Network, Client, [AssociationId; 2]) {
    let mut network = Network::perfect(config, config);
    network.client_address = port(1);
    network.shake_hands();
    let first = network.association();
    let first_client = replace_client(&mut network, config);
    network.client_address = port(2);
    network.connect();
    network.run(Duration::from_secs(5));
    let second = network.association();
    (network, first_client, [first, second])
}

fn dev1() -> Identity {
    Identity::Psk(common::IDENTITY.into())
}

#[test]
fn an_identity_has_two_associations_and_a_third_ends_the_one_heard_from_least_recently() {
    for config in [plain_config(), psk_config()] {
        for silent in [0, 1] {
            let (mut network, mut first_client, both) = two_of_one_identity(&config);
            let identity = dev1();
            let newest_first = [both[1], both[0]];
            assert!(network.server.associations_of(&identity).eq(newest_first));
            assert_eq!(network.server.association_of(&identity), Some(both[1]));
            assert!(closed(&network.server_events).is_empty());
            if silent == 1 {
                network.client_address = port(1);
                std::mem::swap(&mut first_client, &mut network.client);
            }
            network.client.send(b"here").expect("established");
            network.run(Duration::from_secs(1));
            network.client = Client::new(arc(&config), Box::new(Seeded(78)));
            network.client_address = port(3);
            network.connect();
            network.run(Duration::from_secs(5));
            assert_eq!(closed(&network.server_events), [(both[silent], Reason::Replaced)]);
            let expected = [network.association(), both[1 - silent]];
            assert!(network.server.associations_of(&identity).eq(expected));
            network.exchange();
        }
    }
}

#[test]
fn another_association_of_an_identity_at_the_same_address_replaces_the_one_there() {
    for config in [plain_config(), psk_config()] {
        let mut network = Network::perfect(&config, &config);
        network.shake_hands();
        let old = network.association();
        replace_client(&mut network, &config);
        network.connect();
        network.run(Duration::from_secs(5));
        assert_eq!(closed(&network.server_events), [(old, Reason::Replaced)]);
        assert_eq!(network.server.statistics().sessions, 1);
        network.exchange();
    }
}

#[test]
fn associations_of_an_identity_end_in_any_order_and_revoking_ends_all() {
    let config = psk_config();
    for ends in [0, 1] {
        let (mut network, _, both) = two_of_one_identity(&config);
        assert!(network.server.close(both[ends]));
        assert!(network.server.associations_of(&dev1()).eq([both[1 - ends]]));
        assert!(network.server.close(both[1 - ends]));
        assert_eq!(network.server.association_of(&dev1()), None);
    }
    let (mut network, _, both) = two_of_one_identity(&config);
    network.server.revoke(&dev1());
    network.run(Duration::from_secs(1));
    let ended: Vec<_> = closed(&network.server_events);
    assert_eq!(ended, [(both[1], Reason::Closed), (both[0], Reason::Closed)]);
    assert_eq!(network.server.statistics().sessions, 0);
}

#[test]
fn a_repeated_finished_is_answered_until_application_data_has_come() {
    let config = plain_config();
    let mut network = Network::perfect(&config, &config);
    network.connect();
    for _ in 0..2 {
        for datagram in network.take_from_client() {
            network.give_server(&datagram);
        }
        for datagram in network.take_from_server() {
            network.give_client(&datagram);
        }
    }
    for datagram in network.take_from_client() {
        network.give_server(&datagram);
    }
    assert_eq!(
        network.take_from_server().len(),
        1,
        "the final flight, which gets lost"
    );
    assert_eq!(network.established(), (0, 1));
    network.run(Duration::from_secs(30));
    assert_eq!(
        network.established(),
        (1, 1),
        "the client's timer has asked for it"
    );
    network.exchange();
    let statistics = network.server.statistics();
    assert_eq!(statistics.lingering, 1, "its timer is left");
    network.run(Duration::from_secs(300));
    assert_eq!(network.server.statistics().lingering, 0);
}

#[test]
fn close_notify_ends_it_and_what_comes_after_is_dropped() {
    for config in [plain_config(), psk_config()] {
        let mut network = Network::perfect(&config, &config);
        network.shake_hands();
        let association = network.association();
        network.client.send(b"late").expect("established");
        let late = network.take_from_client().remove(0);
        network.client.close();
        network.run(Duration::from_secs(1));
        assert_eq!(
            closed(&network.server_events),
            [(association, Reason::ClosedByPeer)]
        );
        network.give_server(&late);
        assert!(network.server_handler.received.is_empty());
        assert_eq!(network.server.statistics().sessions, 0);
        network.shake_hands_again();
        let association = network.association();
        assert!(network.server.close(association));
        network.run(Duration::from_secs(1));
        assert!(!network.client.is_established());
        assert!(!network.server.close(association));
    }
}

#[test]
fn forged_records_end_nothing_and_their_source_is_throttled() {
    let config = Config {
        max_forged: 50,
        ..plain_config()
    };
    let mut network = Network::perfect(&config, &config);
    network.shake_hands();
    for sequence in 0..500 {
        network.give_server(&plain(23, 1, 1000 + sequence, &[7; 60]));
    }
    let statistics = network.server.statistics();
    assert_eq!((statistics.forged, statistics.sessions), (51, 1));
    let suspicious = network.server_events.iter();
    let suspicious = suspicious.filter(|event| matches!(event, Event::Suspicious { .. }));
    assert_eq!(suspicious.count(), 1);
    network.run(Duration::from_secs(1));
    network.exchange();
}

#[test]
fn a_negotiated_fragment_length_binds_flights_and_datagrams() {
    let client = Config {
        max_fragment_length: Some(512),
        suites: vec![Suite::EcdheEcdsaCcm8],
        raw_public_key: SigningKey::from_pkcs8(&common::pki::raw_key()).map(std::sync::Arc::new),
        accept_raw_public_keys: true,
        ..plain_config()
    };
    let mut network = Network::perfect(&client, &client);
    network.shake_hands();
    network.exchange();
    let association = network.association();
    assert_eq!(
        network.server.send(association, &[0; 513]),
        Err(SendError::TooLong)
    );
    assert_eq!(network.server.send(association, &[0; 512]), Ok(()));
    assert_eq!(network.client.send(&[0; 513]), Err(SendError::TooLong));
    let sent: Vec<_> = network.log.iter().map(|(_, datagram)| datagram.clone()).collect();
    for record in records(&sent) {
        assert!(record.len() <= 13 + 512 + 16, "{}", record.len());
    }
}

#[test]
fn handshakes_under_way_are_bounded_by_prefix_and_the_longest_stalled_leaves() {
    let config = plain_config();
    let mut network = Network::perfect(&config, &config);
    network.shake_hands();
    let mut hellos = Vec::new();
    for port in 0..20 {
        let mut client = Client::new(arc(&config), Box::new(Seeded(u64::from(port) + 1000)));
        let address = SocketAddr::from(([203, 0, 113, 9], 5000 + port));
        let mut handler = Keeper::new();
        client
            .connect(server_address(), network.now, &mut handler)
            .expect("credentials");
        let first = client.poll_transmit().expect("a hello").datagram.to_vec();
        let server = &mut network.server;
        server.receive_datagram(address, &first, network.now, &mut network.server_handler);
        let verify = server.poll_transmit().expect("a cookie").datagram.to_vec();
        client.receive_datagram(server_address(), &verify, network.now, &mut handler);
        let second = client.poll_transmit().expect("another").datagram.to_vec();
        server.receive_datagram(address, &second, network.now, &mut network.server_handler);
        while server.poll_transmit().is_some() {}
        hellos.push((address, second));
    }
    let statistics = network.server.statistics();
    assert_eq!((statistics.half_open, statistics.shed), (16, 4));
    network.now = network.now + config.stall;
    let (address, hello) = hellos.last().expect("twenty");
    let (now, handler) = (network.now, &mut network.server_handler);
    network.server.receive_datagram(*address, hello, now, handler);
    let statistics = network.server.statistics();
    assert_eq!(
        (statistics.half_open, statistics.shed, statistics.failed),
        (16, 4, 1)
    );
    network.take_from_server();
    network.exchange();
}

#[test]
fn revoking_an_identity_ends_its_association_at_once() {
    let config = psk_config();
    let mut network = Network::perfect(&config, &config);
    network.shake_hands();
    let association = network.association();
    let identity = Identity::Psk(common::IDENTITY.into());
    assert_eq!(network.server.association_of(&identity), Some(association));
    network.server.revoke(&identity);
    network.run(Duration::from_secs(1));
    assert!(!network.client.is_established());
    assert_eq!(closed(&network.server_events), [(association, Reason::Closed)]);
    assert_eq!(network.server.statistics().sessions, 0);
}

/// A network with the client's or the server's certificate flight, a record each.
fn certificate_flight(of_client: bool) -> (Network, Vec<Vec<u8>>) {
    let config = || Config {
        suites: vec![Suite::EcdheEcdsaCcm8],
        raw_public_key: SigningKey::from_pkcs8(&common::pki::raw_key()).map(std::sync::Arc::new),
        accept_raw_public_keys: true,
        ..plain_config()
    };
    let mut network = Network::perfect(&config(), &config());
    network.connect();
    let mut flight = Vec::new();
    for round in 0..2 {
        for datagram in network.take_from_client() {
            network.give_server(&datagram);
        }
        flight = network.take_from_server();
        if round == 0 || of_client {
            for datagram in &flight {
                network.give_client(datagram);
            }
        }
    }
    if of_client {
        flight = network.take_from_client();
    }
    (network, records(&flight))
}

/// Gives a handshake record of epoch 0 another message number.
fn renumber(record: &mut [u8], back: u8) {
    record[18] -= back;
}

#[test]
fn a_client_that_leaves_out_its_certificate_or_signature_is_refused() {
    // Certificate, ClientKeyExchange, CertificateVerify, ChangeCipherSpec, Finished.
    let (mut network, mut flight) = certificate_flight(true);
    renumber(&mut flight[1], 1);
    network.give_server(&flight[1]);
    let alert = [21, 254, 253, 0, 0];
    let answer = network.take_from_server().remove(0);
    assert_eq!(answer[..5], alert);
    assert_eq!(answer[13..], [2, Alert::UnexpectedMessage as u8]);
    network.assert_no_half_open();

    let (mut network, flight) = certificate_flight(true);
    for at in [0, 1, 3, 4] {
        network.give_server(&flight[at]);
    }
    assert_eq!(network.established(), (0, 0));

    let (mut network, mut flight) = certificate_flight(true);
    let last = flight[2].len() - 1;
    flight[2][last] ^= 1;
    for record in &flight {
        network.give_server(record);
    }
    assert_eq!(network.established(), (0, 0));
    assert!(matches!(
        network.server_events.last(),
        Some(Event::Failed {
            reason: "bad-signature",
            ..
        })
    ));
    network.assert_no_half_open();
}

#[test]
fn a_server_that_leaves_out_its_signature_is_refused() {
    // ServerHello, Certificate, ServerKeyExchange, CertificateRequest, ServerHelloDone.
    let (mut network, mut flight) = certificate_flight(false);
    renumber(&mut flight[3], 1);
    for at in [0, 1, 3] {
        network.give_client(&flight[at]);
    }
    let failed = |network: &Network, expected: &str| matches!(network.client_events.last(), Some(Event::Failed { reason, .. }) if *reason == expected);
    assert!(failed(&network, "unexpected-message"));
    let (mut network, mut flight) = certificate_flight(false);
    let last = flight[2].len() - 1;
    flight[2][last] ^= 1;
    for record in &flight {
        network.give_client(record);
    }
    assert!(failed(&network, "bad-signature"));
    assert_eq!(client_address(), network.client_address);
}
