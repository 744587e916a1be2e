//! Bugs that somebody shipped, each by name: what must happen here instead.

mod common;

use std::time::Duration;

use common::network::{Link, Network, client_address, server_address};
use common::wire::{self, FINISHED, fragment, plain, records};
use common::{Keeper, Seeded, psk_config};
use dtls::{Client, Config, ConnectionIds, Event, Random, Server, Suite};

/// Settings with which all records are of the plain form.
fn plain_config() -> Config {
    Config {
        connection_ids: None,
        ..psk_config()
    }
}

/// A network with the client's second hello, the one with a cookie, ready to go.
fn with_cookie(config: &Config) -> (Network, Vec<u8>) {
    let mut network = Network::perfect(config, config);
    network.connect();
    let first = network.take_from_client().remove(0);
    network.give_server(&first);
    let verify = network.take_from_server().remove(0);
    network.give_client(&verify);
    let hello = network.take_from_client().remove(0);
    (network, hello)
}

/// A network with the client's last flight, a record each: `ClientKeyExchange`, `ChangeCipherSpec`, Finished.
fn with_last_flight(config: &Config) -> (Network, Vec<Vec<u8>>) {
    let (mut network, hello) = with_cookie(config);
    network.give_server(&hello);
    for datagram in network.take_from_server() {
        network.give_client(&datagram);
    }
    let flight = records(&network.take_from_client());
    assert_eq!(flight.len(), 3);
    (network, flight)
}

fn half_open(network: &Network) -> usize {
    network.server.statistics().half_open
}

#[test]
fn a_client_hello_in_fragments_with_the_cookie_in_the_first_is_stateless_before_the_cookie() {
    let config = Config {
        mtu: 128,
        suites: Suite::ALL.to_vec(),
        accept_raw_public_keys: true,
        server_name: Some("a-rather-long-name-of-a-server.example".to_owned()),
        ..plain_config()
    };
    let mut network = Network::perfect(&config, &config);
    network.connect();
    let first = network.take_from_client();
    assert!(first.len() > 1, "in fragments");
    for datagram in &first {
        network.give_server(datagram);
    }
    assert_eq!(half_open(&network), 0);
    let verify = network.take_from_server();
    assert_eq!(verify.len(), 1, "one answer, to the first fragment");
    assert!(verify[0].len() <= first[0].len(), "no amplification");
    network.give_client(&verify[0]);
    network.run(Duration::from_secs(5));
    assert_eq!(network.established(), (1, 1));
    network.exchange();
}

#[test]
fn overlapping_fragments_that_contradict_are_dropped_and_the_handshake_goes_on() {
    let (mut network, flight) = with_last_flight(&plain_config());
    let body = &flight[0][13 + 12..];
    for (offset, length, value) in [(0, 1, 0xff), (1, 3, 0xee), (2, 0, 0)] {
        let lie = vec![value; length];
        network.give_server(&plain(22, 0, 70, &fragment(16, body.len(), 2, offset, &lie)));
    }
    network.give_server(&plain(22, 0, 71, &fragment(16, body.len() + 1, 2, 0, body)));
    assert_eq!(network.established(), (0, 0));
    // The lie about the first bytes has spoiled the message; a contradiction is never used to overwrite.
    for record in &flight {
        network.give_server(record);
    }
    assert_eq!(network.established(), (0, 0));
    assert_eq!(half_open(&network), 1);
}

#[test]
fn a_huge_announced_message_keeps_no_memory() {
    let (mut network, hello) = with_cookie(&plain_config());
    network.give_server(&hello);
    for seq in 0..60 {
        network.give_server(&plain(
            22,
            0,
            80,
            &fragment(11, (1 << 24) - 1, 2 + seq, 0, &[1; 1000]),
        ));
        network.give_server(&plain(22, 0, 81, &fragment(11, 8192, 2 + seq, 100, &[1; 1000])));
    }
    assert!(network.server.statistics().reassembly_bytes <= 12 << 10);
    network.link = Link {
        loss: 1000,
        ..Link::default()
    };
    network.run(Duration::from_secs(200));
    network.assert_no_half_open();
}

#[test]
fn a_flood_of_next_epoch_records_before_change_cipher_spec_is_bounded() {
    let (mut network, flight) = with_last_flight(&plain_config());
    for sequence in 0..5000 {
        network.give_server(&plain(22, 1, sequence, &[7; 40]));
    }
    // The flood has taken the two places, so the true Finished has to be sent again.
    for record in &flight {
        network.give_server(record);
    }
    network.run(Duration::from_secs(60));
    assert_eq!(network.established(), (1, 1));
    network.exchange();
}

#[test]
fn an_unauthenticated_record_with_a_huge_sequence_moves_no_window() {
    let mut network = Network::perfect(&plain_config(), &plain_config());
    network.shake_hands();
    for kind in [20, 21, 22, 23] {
        network.give_server(&plain(kind, 1, (1 << 48) - 1, &[7; 40]));
        network.give_server(&plain(kind, 0, (1 << 48) - 1, &[7; 40]));
        network.give_server(&plain(kind, 7, (1 << 48) - 1, &[7; 40]));
        network.give_client(&plain(kind, 1, (1 << 48) - 1, &[7; 40]));
    }
    network.exchange();
}

#[test]
fn handshake_messages_under_mixed_epochs_are_dropped() {
    let (mut network, flight) = with_last_flight(&plain_config());
    network.give_server(&flight[0]);
    network.give_server(&flight[1]);
    // A Finished in the clear is none.
    network.give_server(&plain(22, 0, 90, &fragment(FINISHED, 12, 3, 0, &[0; 12])));
    assert_eq!(network.established(), (0, 0));
    network.give_server(&flight[2]);
    assert_eq!(network.established(), (0, 1));
}

#[test]
fn change_cipher_spec_early_doubled_or_missing_makes_no_association() {
    let order = |which: &[usize]| {
        let (mut network, flight) = with_last_flight(&plain_config());
        for at in which {
            network.give_server(&flight[*at]);
        }
        network.established().1
    };
    assert_eq!(order(&[1, 0, 2]), 0, "before ClientKeyExchange");
    assert_eq!(order(&[0, 2]), 0, "missing");
    assert_eq!(order(&[1, 2]), 0, "without ClientKeyExchange");
    assert_eq!(order(&[0, 1, 1, 2]), 1, "doubled: the second is dropped");
    let (mut network, hello) = with_cookie(&plain_config());
    network.give_server(&plain(20, 0, 0, &[1]));
    network.give_server(&hello);
    network.give_server(&plain(20, 0, 9, &[1]));
    network.run(Duration::from_secs(5));
    assert_eq!(network.established(), (1, 1));
}

#[test]
fn application_data_in_epoch_0_is_dropped_also_after_finished() {
    let (mut network, hello) = with_cookie(&plain_config());
    let forged = plain(23, 0, 5, b"forged");
    network.give_server(&forged);
    network.give_server(&hello);
    network.give_server(&forged);
    network.run(Duration::from_secs(5));
    assert_eq!(network.established(), (1, 1));
    network.give_server(&forged);
    network.give_client(&forged);
    assert!(network.server_handler.received.is_empty() && network.client_handler.received.is_empty());
}

#[test]
fn a_failed_handshake_leaks_no_counter_and_the_next_works() {
    let mut wrong = plain_config();
    if let Some(psk) = &mut wrong.psk {
        psk.key[0] ^= 1;
    }
    let mut network = Network::perfect(&wrong, &plain_config());
    for _ in 0..20 {
        network.connect();
        network.run(Duration::from_secs(130));
    }
    network.assert_no_half_open();
    assert_eq!(network.server.statistics().failed, 20);
    let reasons = network.server_events.iter().map(|event| match event {
        Event::Failed { reason, .. } => *reason,
        _ => "",
    });
    assert!(reasons.clone().all(|reason| reason == "wrong-key"), "{reasons:?}");
    network.client = Client::new(common::arc(&plain_config()), Box::new(Seeded(5)));
    network.server_events.clear();
    network.client_events.clear();
    network.shake_hands();
}

#[test]
fn a_device_with_a_wrong_key_hears_so_when_it_repeats_its_flight() {
    let mut wrong = plain_config();
    if let Some(psk) = &mut wrong.psk {
        psk.key[0] ^= 1;
    }
    let reason = |events: &[Event]| {
        events.iter().find_map(|event| match event {
            Event::Failed { reason, .. } => Some(*reason),
            _ => None,
        })
    };
    let mut network = Network::perfect(&wrong, &plain_config());
    network.connect();
    network.run(Duration::from_secs(20));
    network.assert_no_half_open();
    assert_eq!(reason(&network.server_events), Some("wrong-key"));
    // The alert is in the clear, anybody's: our device notes it and goes on trying until its time is over.
    network.run(Duration::from_secs(130));
    assert_eq!(reason(&network.client_events), Some("decrypt-error"));
}

#[test]
fn forged_records_within_one_flight_end_no_handshake() {
    let (mut network, flight) = with_last_flight(&plain_config());
    for record in &flight[..2] {
        network.give_server(record);
    }
    let mut forged = flight[2].clone();
    *forged.last_mut().expect("a tag") ^= 1;
    for _ in 0..100 {
        network.give_server(&forged);
    }
    network.give_server(&flight[2]);
    network.run(Duration::from_secs(1));
    assert_eq!(network.established(), (1, 1));
}

#[test]
fn an_unknown_identity_looks_like_a_wrong_key() {
    let sizes = |config: &Config| {
        let mut network = Network::perfect(config, &plain_config());
        network.connect();
        network.run(Duration::from_secs(130));
        let of_server = network.log.iter().filter(|(to_server, _)| !to_server);
        let sizes: Vec<_> = of_server.map(|(_, datagram)| datagram.len()).collect();
        let last = network.server_events.pop();
        (sizes, last)
    };
    let (mut wrong, mut unknown) = (plain_config(), plain_config());
    if let (Some(wrong), Some(unknown)) = (&mut wrong.psk, &mut unknown.psk) {
        wrong.key[0] ^= 1;
        unknown.identity = b"dev2".to_vec();
    }
    let ((wrong, reason), (unknown, other)) = (sizes(&wrong), sizes(&unknown));
    assert_eq!(wrong, unknown);
    assert!(matches!(
        reason,
        Some(Event::Failed {
            reason: "wrong-key",
            ..
        })
    ));
    assert!(matches!(
        other,
        Some(Event::Failed {
            reason: "unknown-identity",
            claimed: Some(_),
            ..
        })
    ));
}

#[test]
fn there_is_no_state_and_no_amplification_without_a_cookie() {
    let mut network = Network::perfect(&plain_config(), &plain_config());
    network.connect();
    let hello = network.take_from_client().remove(0);
    for port in 1..2000_u16 {
        let address = std::net::SocketAddr::from(([10, 0, 0, 1], port));
        let (now, handler) = (network.now, &mut network.server_handler);
        network.server.receive_datagram(address, &hello, now, handler);
    }
    network.assert_no_half_open();
    assert!(
        network
            .take_from_server()
            .iter()
            .all(|answer| answer.len() < hello.len())
    );
    assert_eq!(network.server.statistics().cookies, 1999);
}

#[test]
fn a_cookie_is_good_for_its_address_only_and_for_two_periods_at_most() {
    let config = Config {
        cookie_lifetime: Duration::from_secs(10),
        ..plain_config()
    };
    let (mut network, hello) = with_cookie(&config);
    let other = std::net::SocketAddr::from(([198, 51, 100, 7], 40_001));
    let (now, handler) = (network.now, &mut network.server_handler);
    network.server.receive_datagram(other, &hello, now, handler);
    assert_eq!(half_open(&network), 0);
    network.now = network.now + Duration::from_secs(11);
    network.give_server(&hello);
    assert_eq!(half_open(&network), 1, "the secret before is still good");
    let (mut network, hello) = with_cookie(&config);
    network.now = network.now + Duration::from_secs(21);
    network.give_server(&hello);
    assert_eq!(half_open(&network), 0);
    network.run(Duration::from_secs(30));
    assert_eq!(network.established(), (1, 1), "the client takes another cookie");
}

#[test]
fn connection_id_lengths_that_differ_and_unknown_values_are_kept_apart() {
    let ids = |length| Config {
        connection_ids: Some(ConnectionIds { length, node: None }),
        ..psk_config()
    };
    let mut network = Network::perfect(&ids(20), &ids(1));
    network.shake_hands();
    network.exchange();
    network.client.send(b"x").expect("established");
    let datagram = network.take_from_client().remove(0);
    let mut unknown = datagram.clone();
    unknown[11] ^= 0xff;
    network.give_server(&unknown);
    // With a connection id agreed, records without one are nobody's.
    let mut without = datagram.clone();
    without[0] = 23;
    without.remove(11);
    network.give_server(&without);
    assert_eq!(network.server_handler.received.len(), 1);
    assert!(network.take_from_server().is_empty(), "silent");
    network.give_server(&datagram);
    assert_eq!(network.server_handler.received.len(), 2);
}

#[test]
fn a_malformed_cookie_or_session_id_length_is_dropped() {
    let (mut network, hello) = with_cookie(&plain_config());
    let session_id = 13 + 12 + 2 + 32;
    for (at, value) in [
        (session_id, 33),
        (session_id, 255),
        (session_id + 1, 255),
        (session_id + 1, 15),
    ] {
        let mut bad = hello.clone();
        bad[at] = value;
        network.give_server(&bad);
        assert_eq!(half_open(&network), 0, "{at} {value}");
    }
    for length in 0..hello.len() {
        network.give_server(&hello[..length]);
    }
    network.assert_no_half_open();
}

#[test]
fn a_generator_that_gives_zeros_or_fails_begins_no_handshake() {
    struct Broken(bool);
    impl Random for Broken {
        fn fill(&mut self, bytes: &mut [u8]) -> bool {
            bytes.fill(0);
            self.0
        }
    }
    for works in [true, false] {
        let mut client = Client::new(common::arc(&psk_config()), Box::new(Broken(works)));
        let now = dtls::Instant::from_micros(1);
        assert!(client.connect(server_address(), now, &mut Keeper::new()).is_err());
        let mut network = Network::perfect(&psk_config(), &psk_config());
        network.server = Server::new(common::arc(&psk_config()), Box::new(Broken(works)));
        network.connect();
        network.run(Duration::from_secs(5));
        assert_eq!(network.established(), (0, 0));
        network.assert_no_half_open();
    }
}

#[test]
fn records_of_length_0_truncated_headers_and_two_hellos_in_a_datagram_do_no_harm() {
    let (mut network, hello) = with_cookie(&plain_config());
    for kind in 19..=26 {
        network.give_server(&plain(kind, 0, 1, &[]));
        network.give_server(&plain(kind, 1, 1, &[]));
        network.give_server(&wire::plain(kind, 0, 1, &[1])[..12]);
    }
    network.give_server(&[hello.as_slice(), &hello].concat());
    assert_eq!(half_open(&network), 1);
    assert_eq!(network.take_from_server().len(), 1, "one flight");
    assert_eq!(client_address(), network.client_address);
}
