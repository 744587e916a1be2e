//! Handshakes with pre-shared keys over a link without faults.

mod common;

use std::time::Duration;

use common::network::Network;
use common::psk_config;
use dtls::{Config, ConnectionIds, Suite};

#[test]
fn client_and_server_agree_with_every_psk_suite() {
    for suite in [
        Suite::PskCcm8,
        Suite::PskCcm,
        Suite::PskGcm,
        Suite::EcdhePskCcm8,
        Suite::EcdhePskCcm,
        Suite::EcdhePskGcm,
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
    assert_eq!(look_up, dtls::LookUp::Psk(common::IDENTITY.into()));
    let key = dtls::Secret::new(common::KEY.to_vec());
    let now = network.now;
    network
        .server
        .provide_psk(handshake, Some(&key), now, &mut network.server_handler);
    network.run(Duration::from_secs(1));
    assert_eq!(network.established(), (1, 1));
    network.exchange();
}
