//! Sessions that are resumed by ticket, and everything for which a full handshake follows instead.

mod callers;
#[path = "../common/mod.rs"]
mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::network::{Link, Network, server_address};
use common::pki::{raw_key_config, x509};
use common::wire::{records, without_extension};
use common::{IDENTITY, Seeded, arc, psk_config};
use dtls::{Alert, Config, Event, HandshakeId, Identity, LookUp, PskKeys, Secret, Server, Suite};

const EXTENDED_MASTER_SECRET: u16 = 23;
const SESSION_TICKET: u16 = 35;

/// Settings with which all records are of the plain form.
fn plain_config() -> Config {
    Config {
        connection_ids: None,
        ..psk_config()
    }
}

/// A network after a full handshake, at the end of which the client has a ticket.
fn with_ticket(client: &Config, server: &Config) -> Network {
    let mut network = Network::perfect(client, server);
    network.shake_hands();
    network.exchange();
    assert_eq!(network.server.statistics().resumed, 0);
    network
}

/// Shakes hands again, to success, and tells whether that resumed the session.
fn resumes(network: &mut Network) -> bool {
    let before = network.server.statistics().resumed;
    network.shake_hands_again();
    network.exchange();
    let resumed = network.server.statistics().resumed - before == 1;
    let masters = [&network.client_handler.masters, &network.server_handler.masters];
    let [ours, theirs] = masters.map(|masters| masters.last().copied());
    assert_eq!(ours, theirs);
    let all = &network.server_handler.masters;
    assert_eq!(
        all.iter().filter(|master| Some(**master) == theirs).count() > 1,
        resumed
    );
    resumed
}

/// The client's hello with a cookie.
fn hello(network: &mut Network) -> Vec<u8> {
    network.connect();
    let first = network.take_from_client().remove(0);
    network.give_server(&first);
    assert_eq!(
        network.server.statistics().half_open,
        0,
        "no state before the cookie"
    );
    let verify = network.take_from_server().remove(0);
    assert_eq!(
        (verify.len(), verify[13]),
        (13 + 12 + 19, 3),
        "a HelloVerifyRequest"
    );
    network.give_client(&verify);
    network.take_from_client().remove(0)
}

/// Types of the messages in the clear that the server sends; `ChangeCipherSpec` is 255.
fn flight(network: &mut Network) -> Vec<u8> {
    let sent = records(&network.take_from_server());
    let plain = sent.iter().filter(|record| record[3..5] == [0, 0]);
    plain
        .map(|record| if record[0] == 20 { 255 } else { record[13] })
        .collect()
}

const FULL: [u8; 2] = [2, 14];
const ABBREVIATED: [u8; 2] = [2, 255];

#[test]
fn sessions_of_every_credential_are_resumed_with_new_connection_ids_and_without_their_certificates() {
    let (x509_client, x509_server, _) = x509();
    let suite = |suite| Config {
        suites: vec![suite],
        ..psk_config()
    };
    let psk = suite(Suite::PskCcm8);
    let gcm = suite(Suite::EcdhePskGcm);
    let raw = raw_key_config();
    for (client, server) in [
        (&psk, &psk),
        (&gcm, &gcm),
        (&raw, &raw),
        (&x509_client, &x509_server),
    ] {
        let mut network = with_ticket(client, server);
        let (of_client, before) = (network.client_handler.masters.len(), network.log.len());
        let identity = |network: &Network| {
            let (_, identity) = network.server.peer(network.association()).expect("there");
            identity.clone()
        };
        let first = (identity(&network), network.association());
        let cid = |network: &Network| {
            let (_, last) = network
                .log
                .iter()
                .rfind(|(to_server, _)| *to_server)
                .expect("sent");
            last[11..19].to_vec()
        };
        let old_cid = cid(&network);
        for round in 1..4 {
            assert!(resumes(&mut network));
            assert_eq!(network.server.statistics().resumed, round);
        }
        assert_eq!(network.client_handler.masters.len(), of_client + 3);
        assert_eq!(identity(&network), first.0);
        assert_ne!(network.association(), first.1);
        assert_ne!(cid(&network), old_cid);
        // Two hellos, the cookie, the server's flight, ours, and the exchange.
        assert_eq!(network.log.len(), before + 3 * 7);
        let longest = network.log[before..]
            .iter()
            .map(|(_, datagram)| datagram.len())
            .max();
        assert!(longest < Some(450), "no certificate: {longest:?}");
        network.assert_no_half_open();
    }
}

#[test]
fn a_hello_with_a_ticket_gets_a_cookie_first_like_any_other() {
    let mut network = with_ticket(&plain_config(), &plain_config());
    let sessions = network.server.statistics().sessions;
    let hello = hello(&mut network);
    let other = SocketAddr::from(([198, 51, 100, 7], 40_001));
    let (now, handler) = (network.now, &mut network.server_handler);
    network.server.receive_datagram(other, &hello, now, handler);
    assert_eq!(
        network.server.statistics().half_open,
        0,
        "the cookie is of another address"
    );
    network.take_from_server();
    network.give_server(&hello);
    assert_eq!(flight(&mut network), ABBREVIATED);
    assert_eq!(network.server.statistics().sessions, sessions);
}

#[test]
fn a_resumption_that_is_abandoned_ends_no_association() {
    let mut network = with_ticket(&psk_config(), &psk_config());
    let association = network.association();
    let hello = hello(&mut network);
    network.give_server(&hello);
    network.take_from_server();
    network.link.loss = 1000;
    network.run(Duration::from_secs(300));
    network.assert_no_half_open();
    assert!(network.server.peer(association).is_some());
    network.link.loss = 0;
    network.exchange();
}

#[test]
fn a_full_handshake_follows_when_the_server_has_restarted_or_has_other_settings() {
    let config = psk_config();
    let mut network = with_ticket(&config, &config);
    network.server = Server::new(arc(&config), Box::new(Seeded(4)));
    assert!(!resumes(&mut network));
    assert!(resumes(&mut network), "with the new ticket");
    network.server.reconfigure(arc(&config));
    assert!(!resumes(&mut network));
    let without = Config {
        ticket_lifetime: None,
        ..config
    };
    network.server.reconfigure(arc(&without));
    assert!(!resumes(&mut network));
    assert!(!resumes(&mut network), "there was no ticket");
}

#[test]
fn a_ticket_is_good_for_its_lifetime_whenever_it_was_given() {
    let config = Config {
        ticket_lifetime: Some(Duration::from_secs(1000)),
        ..psk_config()
    };
    for wait in [0, 300, 900] {
        let mut network = with_ticket(&config, &config);
        network.run(Duration::from_secs(wait));
        network.server = Server::new(arc(&config), Box::new(Seeded(wait)));
        // The keys' period begins with the first ticket; this one is of another time of it.
        assert!(!resumes(&mut network));
        let start = network.now;
        network.run(Duration::from_secs(wait));
        assert!(resumes(&mut network));
        network.run_until(start + Duration::from_secs(980));
        assert!(resumes(&mut network), "a resumption does not renew it");
        network.run_until(start + Duration::from_secs(1001));
        assert!(!resumes(&mut network));
    }
}

#[test]
fn the_servers_own_clock_ends_a_ticket_that_a_client_still_offers() {
    let long = Config {
        ticket_lifetime: Some(Duration::from_secs(100_000)),
        ..psk_config()
    };
    let mut network = with_ticket(&long, &long);
    let now = network.now;
    network.now = now + Duration::from_secs(99_990);
    let hello = hello(&mut network);
    network.now = now + Duration::from_secs(100_010);
    network.give_server(&hello);
    assert_eq!(flight(&mut network), FULL);
}

#[test]
fn an_identity_that_is_no_longer_accepted_does_not_resume() {
    let mut network = with_ticket(&psk_config(), &psk_config());
    network.server_handler.keys.clear();
    network.connect();
    network.run(Duration::from_secs(130));
    assert_eq!(network.established(), (1, 1));
    let reason = network.server_events.iter().rev().find_map(|event| match event {
        Event::Failed { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, Some("unknown-identity"), "of the full handshake");

    for (client, server) in [(raw_key_config(), raw_key_config()), {
        let (client, server, _) = x509();
        (client, server)
    }] {
        let mut network = with_ticket(&client, &server);
        network.server_handler.peers = vec![[0; 32]];
        network.connect();
        network.run(Duration::from_secs(130));
        assert_eq!(network.established(), (1, 1));
        assert!(matches!(
            network.server_events.last(),
            Some(Event::Failed {
                reason: "unknown-peer",
                ..
            })
        ));
    }
}

#[test]
fn a_ticket_dies_with_the_pre_shared_key_that_earned_it() {
    let set = |network: &mut Network, current: &[u8], former: Option<&[u8]>| {
        let handler = &mut network.server_handler;
        handler.keys.insert(IDENTITY.to_vec(), current.to_vec());
        handler.former.clear();
        handler
            .former
            .extend(former.map(|key| (IDENTITY.to_vec(), key.to_vec())));
    };
    let mut network = with_ticket(&psk_config(), &psk_config());
    set(&mut network, b"new", Some(common::KEY));
    assert!(resumes(&mut network), "while the former key is good");
    let mut other = with_ticket(&psk_config(), &psk_config());
    set(&mut other, b"new", None);
    let hello = hello(&mut other);
    other.give_server(&hello);
    assert_eq!(flight(&mut other), FULL);

    // Earned with the former key of a rotation.
    let mut network = Network::perfect(&psk_config(), &psk_config());
    set(&mut network, b"new", Some(common::KEY));
    network.shake_hands();
    set(&mut network, common::KEY, None);
    assert!(resumes(&mut network));
}

#[test]
fn a_ticket_ends_with_the_certificate_of_either_side() {
    let (client, server, _) = x509();
    // The certificates are good until 2060-01-01.
    let end = 2_840_140_800;
    for of_client in [true, false] {
        let mut network = Network::perfect(&client, &server);
        let tell = |network: &mut Network, time| {
            if of_client {
                network.server_handler.time = time;
            } else {
                network.client_handler.time = time;
            }
        };
        tell(&mut network, end - 50);
        network.shake_hands();
        network.run(Duration::from_secs(30));
        assert!(resumes(&mut network));
        tell(&mut network, end + 1);
        network.run(Duration::from_secs(30));
        network.connect();
        network.run(Duration::from_secs(1));
        let events = if of_client {
            &network.server_events
        } else {
            &network.client_events
        };
        assert!(matches!(
            events.last(),
            Some(Event::Failed {
                reason: "certificate-expired",
                ..
            })
        ));
    }
}

#[test]
fn rfc_7627_a_hello_without_the_extended_master_secret_aborts_the_resumption_of_a_session_that_had_it() {
    let mut network = with_ticket(&psk_config(), &psk_config());
    let hello = hello(&mut network);
    network.give_server(&without_extension(&hello, EXTENDED_MASTER_SECRET));
    let answer = network.take_from_server();
    assert_eq!(answer.len(), 1);
    assert_eq!(answer[0][13..], [2, Alert::HandshakeFailure as u8]);
    network.assert_no_half_open();
}

#[test]
fn rfc_7627_a_session_without_the_extended_master_secret_gets_no_ticket() {
    let mut network = Network::perfect(&psk_config(), &psk_config());
    let hello = hello(&mut network);
    network.give_server(&without_extension(&hello, EXTENDED_MASTER_SECRET));
    let answer = network.take_from_server().remove(0);
    assert_eq!(answer[13], 2);
    assert_eq!(
        without_extension(&answer, SESSION_TICKET),
        answer,
        "it has no such extension"
    );
}

#[test]
fn rfc_7627_a_server_that_resumes_without_the_extended_master_secret_is_refused() {
    let mut network = with_ticket(&plain_config(), &plain_config());
    let hello = hello(&mut network);
    network.give_server(&hello);
    let mut answer = records(&network.take_from_server());
    answer[0] = without_extension(&answer[0], EXTENDED_MASTER_SECRET);
    network.give_client(&answer[0]);
    assert!(matches!(
        network.client_events.last(),
        Some(Event::Failed {
            reason: "no-extended-master-secret",
            ..
        })
    ));
}

/// Where the suite stands in a `ServerHello` with a session id of 16 bytes.
const SUITE_AT: usize = 13 + 12 + 2 + 32 + 1 + 16;

#[test]
fn rfc_5246_the_suite_of_a_resumed_session_is_that_of_the_session() {
    let config = Config {
        suites: vec![Suite::PskCcm8, Suite::PskGcm],
        ..plain_config()
    };
    let mut network = with_ticket(&config, &config);
    let hello = hello(&mut network);
    network.give_server(&hello);
    let mut answer = records(&network.take_from_server());
    assert_eq!(
        answer[0][SUITE_AT..SUITE_AT + 2],
        Suite::PskCcm8.code().to_be_bytes()
    );
    answer[0][SUITE_AT..SUITE_AT + 2].copy_from_slice(&Suite::PskGcm.code().to_be_bytes());
    network.give_client(&answer[0]);
    assert!(matches!(
        network.client_events.last(),
        Some(Event::Failed {
            reason: "illegal-parameter",
            ..
        })
    ));
    // Our server prefers another suite now, and takes the session's no more.
    let mut network = with_ticket(&config, &config);
    let other = Config {
        suites: vec![Suite::PskGcm],
        ..config
    };
    network.server.reconfigure(arc(&other));
    assert!(!resumes(&mut network));
}

#[test]
fn rfc_5246_a_hello_that_does_not_offer_the_suite_of_its_session_resumes_nothing() {
    let config = Config {
        suites: vec![Suite::PskCcm8, Suite::PskGcm],
        ..psk_config()
    };
    let mut network = with_ticket(&config, &config);
    let mut hello = hello(&mut network);
    let pair = Suite::PskCcm8.code().to_be_bytes();
    let at = hello.windows(2).position(|two| two == pair).expect("offered");
    hello[at..at + 2].copy_from_slice(&[0x13, 0x37]);
    network.give_server(&hello);
    assert_eq!(flight(&mut network), FULL);
}

#[test]
fn rfc_6066_a_hello_with_another_fragment_length_or_server_name_resumes_nothing() {
    let config = Config {
        max_fragment_length: Some(512),
        ..psk_config()
    };
    let mut network = with_ticket(&config, &config);
    let mut changed = hello(&mut network);
    let at = changed
        .windows(5)
        .position(|five| five == [0, 1, 0, 1, 1])
        .expect("512");
    changed[at + 4] = 2;
    network.give_server(&changed);
    assert_eq!(flight(&mut network), FULL);

    let (client, server, _) = x509();
    let mut network = with_ticket(&client, &server);
    let mut changed = hello(&mut network);
    let name = b"server.example";
    let at = changed
        .windows(name.len())
        .position(|part| part == name)
        .expect("a name");
    changed[at] ^= 1;
    network.give_server(&changed);
    assert_ne!(flight(&mut network), ABBREVIATED);
}

#[test]
fn rfc_5077_a_ticket_that_is_not_ours_or_damaged_is_ignored() {
    let mut network = with_ticket(&psk_config(), &psk_config());
    let good = hello(&mut network);
    let marker = SESSION_TICKET.to_be_bytes();
    let at = good.windows(2).rposition(|two| two == marker).expect("a ticket");
    let length = usize::from(u16::from_be_bytes([good[at + 2], good[at + 3]]));
    assert!((100..200).contains(&length), "{length}");
    for byte in 0..length {
        let mut bad = good.clone();
        bad[at + 4 + byte] ^= 4;
        let mut network = with_ticket(&psk_config(), &psk_config());
        assert_eq!(hello(&mut network), good, "the same seed");
        network.give_server(&bad);
        assert_eq!(flight(&mut network), FULL, "byte {byte}");
    }
}
