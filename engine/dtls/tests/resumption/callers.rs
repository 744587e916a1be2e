//! What callers are asked when a session is resumed, and what bad links do to it.

use super::*;

#[test]
fn an_answer_about_a_session_may_come_later() {
    let provide = |network: &mut Network, handshake: HandshakeId, look_up: &LookUp, is_taken: bool| {
        let now = network.now;
        let handler = &mut network.server_handler;
        match look_up {
            LookUp::Psk(identity) => {
                assert_eq!(**identity, Identity::Psk((*IDENTITY).into()));
                let keys = is_taken.then(|| PskKeys::new(Secret::new(common::KEY.to_vec())));
                network.server.provide_psk(handshake, keys.as_ref(), now, handler);
            }
            LookUp::Peer { identity, der, .. } => {
                assert!(der.is_empty() && matches!(**identity, Identity::RawPublicKey(_)));
                network.server.provide_verdict(handshake, is_taken, now, handler);
            }
        }
    };
    for config in [psk_config(), raw_key_config()] {
        for is_taken in [true, false] {
            let mut network = with_ticket(&config, &config);
            network.server_handler.later = true;
            let hello = hello(&mut network);
            network.give_server(&hello);
            network.give_server(&hello);
            assert!(network.take_from_server().is_empty(), "it waits");
            network.run(Duration::from_secs(20));
            let asked = network.server_events.iter().filter_map(|event| match event {
                Event::LookUp {
                    handshake, look_up, ..
                } => Some((*handshake, look_up.clone())),
                _ => None,
            });
            let asked: Vec<_> = asked.collect();
            let [(handshake, look_up)] = asked.as_slice() else {
                panic!("one look-up: {asked:?}")
            };
            network.server_handler.later = false;
            provide(&mut network, *handshake, look_up, is_taken);
            provide(&mut network, *handshake, look_up, !is_taken);
            network.run(Duration::from_secs(20));
            assert_eq!(network.established(), (2, 2));
            assert_eq!(network.server.statistics().resumed, u64::from(is_taken));
            network.exchange();
        }
    }
}

#[test]
fn a_later_answer_with_another_key_resumes_nothing() {
    for (current, former, kinds) in [
        (b"new".to_vec(), None, FULL),
        (b"new".to_vec(), Some(common::KEY.to_vec()), ABBREVIATED),
    ] {
        let mut network = with_ticket(&plain_config(), &plain_config());
        network.server_handler.later = true;
        let hello = hello(&mut network);
        network.give_server(&hello);
        let asked = network.server_events.iter().find_map(|event| match event {
            Event::LookUp { handshake, .. } => Some(*handshake),
            _ => None,
        });
        let keys = PskKeys {
            current: Secret::new(current),
            former: former.map(Secret::new),
        };
        let (now, handler) = (network.now, &mut network.server_handler);
        let handshake = asked.expect("a look-up");
        network.server.provide_psk(handshake, Some(&keys), now, handler);
        assert_eq!(flight(&mut network), kinds);
    }
}

#[test]
fn a_client_asks_its_caller_about_the_server_again() {
    let mut network = with_ticket(&raw_key_config(), &raw_key_config());
    network.client_handler.peers = vec![[0; 32]];
    network.connect();
    network.run(Duration::from_secs(1));
    assert!(matches!(
        network.client_events.last(),
        Some(Event::Failed {
            reason: "unknown-peer",
            ..
        })
    ));
    assert_eq!(network.server.statistics().resumed, 0);
}

#[test]
fn after_a_failed_resumption_the_next_handshake_is_a_full_one() {
    let mut network = with_ticket(&psk_config(), &psk_config());
    let offered = hello(&mut network);
    network.link.loss = 1000;
    network.run(Duration::from_secs(300));
    network.link.loss = 0;
    let plain = hello(&mut network);
    assert!(plain.len() + 100 < offered.len());
    network.give_server(&plain);
    assert_eq!(flight(&mut network), FULL);
}

#[test]
fn a_client_with_other_settings_resumes_nothing() {
    let mut network = with_ticket(&psk_config(), &psk_config());
    network.client.set_config(arc(&psk_config()));
    assert!(!resumes(&mut network));
    assert!(resumes(&mut network));
}

#[test]
fn a_ticket_is_offered_to_the_server_that_gave_it_only() {
    let mut network = with_ticket(&psk_config(), &psk_config());
    let offered = hello(&mut network);
    let mut network = with_ticket(&psk_config(), &psk_config());
    let elsewhere = SocketAddr::from(([192, 0, 2, 2], 5684));
    assert_ne!(elsewhere, server_address());
    let (now, handler) = (network.now, &mut network.client_handler);
    network
        .client
        .connect(elsewhere, now, handler)
        .expect("credentials");
    let plain = network.take_from_client().remove(0);
    assert!(plain.len() + 100 < offered.len());
}

#[test]
fn the_clients_final_flight_is_repeated_when_it_was_lost() {
    for config in [psk_config(), plain_config()] {
        let mut network = with_ticket(&config, &config);
        let hello = hello(&mut network);
        network.give_server(&hello);
        for datagram in network.take_from_server() {
            network.give_client(&datagram);
        }
        assert_eq!(network.take_from_client().len(), 1, "it gets lost");
        assert_eq!(network.established(), (2, 1));
        network.run(Duration::from_secs(60));
        assert_eq!(network.established(), (2, 2));
        network.exchange();
        network.assert_no_half_open();
    }
}

#[test]
fn resumption_over_bad_links_completes_or_gives_up_in_time() {
    let (mut complete, mut resumed) = (0, 0);
    for (loss, duplication, millis) in [(100, 100, 50), (250, 200, 400), (400, 300, 1500)] {
        for seed in 0..150 {
            let suite = [Suite::PskCcm8, Suite::EcdhePskGcm][usize::from(seed % 8 == 0)];
            let config = Config {
                suites: vec![suite],
                initial_timeout: Duration::from_secs(1),
                mtu: [256, 300, 576][usize::try_from(seed % 3).expect("small")],
                ..psk_config()
            };
            let mut network = Network::new(seed * 31 + 7, Link::default(), &config, &config);
            network.shake_hands();
            network.link = Link {
                loss,
                duplication,
                delay: Duration::from_millis(millis),
            };
            network.connect();
            network.run(Duration::from_secs(600));
            network.assert_no_half_open();
            network.link = Link::default();
            if network.established().0 == 2 && network.established().1 == 2 {
                complete += 1;
                resumed += network.server.statistics().resumed;
                network.exchange();
            } else {
                network.shake_hands_again();
                network.exchange();
            }
        }
    }
    assert!(complete > 430 && resumed > 430, "{complete} {resumed} of 450");
}

/// Every order in which the records of an abbreviated handshake can come.
#[test]
fn every_permutation_of_an_abbreviated_flight_completes() {
    let config = Config {
        mtu: 128,
        initial_timeout: Duration::from_secs(1),
        ..plain_config()
    };
    for to_client in [true, false] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut network = with_ticket(&config, &config);
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
            assert_eq!(flight.len(), if to_client { 3 } else { 2 });
            for at in order.iter().filter(|at| **at < flight.len()) {
                if to_client {
                    network.give_client(&flight[*at]);
                } else {
                    network.give_server(&flight[*at]);
                }
            }
            network.run(Duration::from_secs(30));
            assert_eq!(network.established(), (2, 2), "{to_client} {order:?}");
            assert_eq!(network.server.statistics().resumed, 1);
            network.exchange();
        }
    }
}

#[test]
fn an_identity_too_long_for_a_hello_gets_no_ticket() {
    let (mut client, server, authority) = x509();
    let names: Vec<String> = (0..8)
        .map(|at| format!("{at}{}", ".a-label-of-some-length".repeat(8)))
        .collect();
    let issued = authority.client_with_names(&names);
    client.certificate = Some(std::sync::Arc::new(issued.certified(&[])));
    let mut network = with_ticket(&client, &server);
    assert!(!resumes(&mut network));
}
