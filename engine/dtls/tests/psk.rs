//! Handshakes with pre-shared keys over a link without faults.

mod common;

use std::time::Duration;

use common::network::Network;
use common::psk_config;
use common::wire::without_extension;
use dtls::{Config, ConnectionIds, Handler, Suite};

#[test]
fn client_and_server_agree_with_every_psk_suite() {
    for suite in [
        Suite::PskCcm8,
        Suite::PskCcm,
        Suite::PskGcm,
        Suite::EcdhePskCcm8,
        Suite::EcdhePskCcm,
        Suite::EcdhePskGcm,
        Suite::PskCbc,
    ] {
        let config = Config {
            suites: vec![suite],
            ..psk_config()
        };
        let mut network = Network::perfect(&config, &config);
        network.shake_hands();
        network.exchange();
        assert_eq!(
            network.client_handler.masters, network.server_handler.masters,
            "{suite:?}"
        );
        network.assert_no_half_open();
    }
}

#[test]
fn suites_with_cbc_are_taken_only_where_they_are_switched_on() {
    let client = Config {
        suites: vec![Suite::PskCbc, Suite::EcdheEcdsaCbc],
        ..psk_config()
    };
    let mut network = Network::perfect(
        &client,
        &Config {
            psk: None,
            ..Config::default()
        },
    );
    network.connect();
    network.run(Duration::from_secs(1));
    let refused = |event: &dtls::Event| {
        matches!(
            event,
            dtls::Event::Failed {
                reason: "no-common-suite",
                ..
            }
        )
    };
    assert!(network.server_events.iter().any(refused));
    assert_eq!(network.established(), (0, 0));
}

#[test]
fn rfc_7366_encrypt_then_mac_is_answered_with_cbc_only_and_used_where_it_is() {
    const ENCRYPT_THEN_MAC: u16 = 22;
    let config = |suites: &[Suite]| Config {
        suites: suites.to_vec(),
        connection_ids: None,
        ..psk_config()
    };
    let both = config(&[Suite::PskCcm8, Suite::PskCbc]);
    for (server, is_answered) in [
        (config(&[Suite::PskCcm8]), false),
        (config(&[Suite::PskCbc]), true),
    ] {
        let mut network = Network::perfect(&both, &server);
        network.shake_hands();
        network.exchange();
        let hello = network
            .log
            .iter()
            .find(|(to_server, datagram)| !to_server && datagram[13] == 2);
        let (_, hello) = hello.expect("sent");
        let stripped = without_extension(hello, ENCRYPT_THEN_MAC);
        assert_eq!(stripped.len() < hello.len(), is_answered);
        // IV, padded text, MAC; the MAC below the encryption makes another length.
        let (_, last) = network
            .log
            .iter()
            .rfind(|(to_server, _)| *to_server)
            .expect("sent");
        if is_answered {
            assert_eq!(last.len(), 13 + 16 + 16 + 32);
        }
    }
}

#[test]
fn connection_ids_of_every_length_pair_work() {
    let ids = |length: Option<usize>| {
        length.map(|length| ConnectionIds {
            length,
            node: Some(7),
        })
    };
    for client in [None, Some(0), Some(1), Some(20)] {
        for server in [None, Some(0), Some(8), Some(20)] {
            let with = |length| Config {
                connection_ids: ids(length),
                ..psk_config()
            };
            let mut network = Network::perfect(&with(client), &with(server));
            network.shake_hands();
            network.exchange();
            let uses = client.is_some() && server.is_some_and(|length| length > 0);
            let (_, last) = network
                .log
                .iter()
                .rfind(|(to_server, _)| *to_server)
                .expect("sent");
            assert_eq!(last[0] == 25, uses, "{client:?} {server:?}");
            if uses {
                assert_eq!(last[11], 7, "the node's number comes first");
            }
        }
    }
}

#[test]
fn while_a_key_is_rotated_the_new_and_the_former_are_good_and_no_other() {
    for (device, works) in [(b"new", true), (b"old", true), (b"bad", false)] {
        for suite in [Suite::PskCcm8, Suite::EcdhePskGcm] {
            for later in [false, true] {
                let server = Config {
                    suites: vec![suite],
                    ..psk_config()
                };
                let mut client = server.clone();
                if let Some(psk) = &mut client.psk {
                    psk.key = dtls::Secret::new(device.to_vec());
                }
                let mut network = Network::perfect(&client, &server);
                let handler = &mut network.server_handler;
                handler.later = later;
                handler.keys.insert(common::IDENTITY.to_vec(), b"new".to_vec());
                handler.former.insert(common::IDENTITY.to_vec(), b"old".to_vec());
                network.connect();
                network.run(Duration::from_secs(1));
                if later {
                    answer(&mut network);
                    network.run(Duration::from_secs(1));
                }
                let count = usize::from(works);
                assert_eq!(
                    network.established(),
                    (count, count),
                    "{device:?} {suite:?} {later}"
                );
                if works {
                    network.exchange();
                    assert_eq!(network.client_handler.masters, network.server_handler.masters);
                }
            }
        }
    }
}

/// Answers the look-up that waits, with what the handler knows.
fn answer(network: &mut Network) {
    let found = network.server_events.iter().find_map(|event| match event {
        dtls::Event::LookUp { handshake, .. } => Some(*handshake),
        _ => None,
    });
    network.server_handler.later = false;
    let keys = match network.server_handler.psk(common::IDENTITY) {
        dtls::Answer::Known(keys) => Some(keys),
        _ => None,
    };
    let (now, handler) = (network.now, &mut network.server_handler);
    let handshake = found.expect("a look-up");
    network.server.provide_psk(handshake, keys.as_ref(), now, handler);
}

#[test]
fn a_look_up_may_be_answered_later() {
    let config = psk_config();
    let mut network = Network::perfect(&config, &config);
    network.server_handler.later = true;
    network.connect();
    network.run(Duration::from_secs(1));
    assert_eq!(network.established(), (0, 0));
    let found = network.server_events.iter().find_map(|event| match event {
        dtls::Event::LookUp {
            handshake, look_up, ..
        } => Some((*handshake, look_up.clone())),
        _ => None,
    });
    let (handshake, look_up) = found.expect("a look-up");
    let identity = dtls::Identity::Psk(common::IDENTITY.into());
    assert_eq!(look_up, dtls::LookUp::Psk(identity.into()));
    let keys = dtls::PskKeys::new(dtls::Secret::new(common::KEY.to_vec()));
    let now = network.now;
    network
        .server
        .provide_psk(handshake, Some(&keys), now, &mut network.server_handler);
    network.run(Duration::from_secs(1));
    assert_eq!(network.established(), (1, 1));
    network.exchange();
}
