//! Handshakes with X.509 certificates and raw public keys: who is taken and who is refused, and why.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::network::{Link, Network};
use common::pki::{Authority, Issued, raw_key_config, self_signed, x509};
use common::wire::{fragment, plain, records};
use dtls::{Config, Event, HandshakeId, Identity, LookUp, Suite, Trust, Usage};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

const ECDSA: [Suite; 4] = [
    Suite::EcdheEcdsaCcm8,
    Suite::EcdheEcdsaCcm,
    Suite::EcdheEcdsaGcm,
    Suite::EcdheEcdsaCbc,
];

/// Why the side that knows says that the handshake failed.
fn refusal(events: &[Event]) -> Option<&'static str> {
    events.iter().find_map(|event| match event {
        Event::Failed { reason, .. } => Some(*reason),
        _ => None,
    })
}

#[track_caller]
fn assert_refused_by_server(client: &Config, server: &Config, reason: &str) -> Network {
    let mut network = Network::perfect(client, server);
    network.connect();
    network.run(Duration::from_secs(1));
    assert_eq!(refusal(&network.server_events), Some(reason));
    assert_eq!(network.established(), (0, 0));
    network.assert_no_half_open();
    network
}

#[track_caller]
fn assert_refused_by_client(client: &Config, server: &Config, reason: &str) {
    let mut network = Network::perfect(client, server);
    network.connect();
    network.run(Duration::from_secs(1));
    assert_eq!(refusal(&network.client_events), Some(reason));
    assert_eq!(network.established(), (0, 0));
}

#[test]
fn certificates_of_a_common_authority_are_taken_with_every_suite() {
    for suite in ECDSA {
        let (mut client, mut server, _) = x509();
        client.suites = vec![suite];
        server.suites = vec![suite];
        let mut network = Network::perfect(&client, &server);
        network.shake_hands();
        network.exchange();
        let (_, identity) = network.server.peer(network.association()).expect("there");
        let Identity::Certificate { names, .. } = &**identity else {
            panic!("{identity:?}");
        };
        assert_eq!(&**names, [Box::from("dev1.example"), Box::from("dev1.example")]);
    }
}

#[test]
fn a_chain_with_an_intermediate_authority_is_taken() {
    let (mut client, mut server, root) = x509();
    let below = root.below("Issuing CA");
    client.certificate = Some(Arc::new(below.client("dev2").certified(&[&below.der])));
    server.certificate = Some(Arc::new(
        below.server("server.example").certified(&[&below.der, &root.der]),
    ));
    Network::perfect(&client, &server).shake_hands();
}

#[test]
fn raw_public_keys_are_taken_when_the_caller_knows_them() {
    let (client, server) = (raw_key_config(), raw_key_config());
    let mut network = Network::perfect(&client, &server);
    network.shake_hands();
    network.exchange();
    let (_, identity) = network.server.peer(network.association()).expect("there");
    assert!(matches!(**identity, Identity::RawPublicKey(_)));

    let mut network = Network::perfect(&client, &server);
    network.server_handler.peers = vec![[0; 32]];
    network.connect();
    network.run(Duration::from_secs(1));
    assert_eq!(refusal(&network.server_events), Some("unknown-peer"));
    network.assert_no_half_open();
}

#[test]
fn certificate_types_may_differ_between_the_sides() {
    let (client, mut server, authority) = x509();
    let raw = raw_key_config();
    let client_with_raw = Config {
        raw_public_key: raw.raw_public_key,
        certificate: None,
        ..client
    };
    server.accept_raw_public_keys = true;
    let mut network = Network::perfect(&client_with_raw, &server);
    network.shake_hands();
    network.exchange();
    assert!(!authority.der.is_empty());
}

#[test]
fn bad_client_certificates_are_refused_with_the_reason() {
    let (client, server, authority) = x509();
    let with = |issued: Issued| Config {
        certificate: Some(Arc::new(issued.certified(&[]))),
        ..client.clone()
    };
    let stranger = Authority::new("Other CA");
    assert_refused_by_server(&with(stranger.client("dev1")), &server, "unknown-authority");
    assert_refused_by_server(
        &with(authority.expired_client("dev1")),
        &server,
        "certificate-expired",
    );
    let wrong_use = with(authority.server("dev1"));
    assert_refused_by_server(&wrong_use, &server, "certificate-for-another-use");
    let none = Config {
        certificate: None,
        ..client
    };
    assert_refused_by_server(&none, &server, "no-client-certificate");
}

#[test]
fn bad_server_certificates_are_refused_with_the_reason() {
    let (client, server, authority) = x509();
    let with = |issued: Issued| Config {
        certificate: Some(Arc::new(issued.certified(&[]))),
        ..server.clone()
    };
    let stranger = Authority::new("Other CA");
    let reason = "unknown-authority";
    assert_refused_by_client(&client, &with(stranger.server("server.example")), reason);
    let reason = "certificate-for-another-name";
    assert_refused_by_client(&client, &with(authority.server("other.example")), reason);
    let reason = "certificate-for-another-use";
    assert_refused_by_client(&client, &with(authority.client("server.example")), reason);
}

#[test]
fn the_certificate_usages_of_lwm2m_pin_what_they_say() {
    let (client, server, authority) = x509();
    let own = server.certificate.clone().expect("there");
    let other = Authority::new("Other CA");
    let authorities = [authority.der.clone(), other.der.clone()];
    let issued = authority.server("server.example");
    let server_of = |issued: &Issued| Config {
        certificate: Some(Arc::new(issued.certified(&[]))),
        ..server.clone()
    };
    drop(own);
    let cases = [
        (Usage::CaConstraint, &authority.der, None),
        (Usage::CaConstraint, &other.der, Some("foreign-authority")),
        (Usage::ServiceCertificateConstraint, &issued.der, None),
        (
            Usage::ServiceCertificateConstraint,
            &authority.der,
            Some("foreign-certificate"),
        ),
        (Usage::TrustAnchorAssertion, &authority.der, None),
        (Usage::TrustAnchorAssertion, &other.der, Some("unknown-authority")),
        (Usage::DomainIssuedCertificate, &issued.der, None),
        (
            Usage::DomainIssuedCertificate,
            &other.der,
            Some("foreign-certificate"),
        ),
    ];
    for (usage, pin, refused) in cases {
        let trust = Trust::pinned(usage, pin.clone(), &authorities).expect("certificates");
        let client = Config {
            trust: Arc::new(trust),
            ..client.clone()
        };
        let mut network = Network::perfect(&client, &server_of(&issued));
        network.connect();
        network.run(Duration::from_secs(1));
        assert_eq!(refusal(&network.client_events), refused, "{usage:?}");
        assert_eq!(network.established().0, usize::from(refused.is_none()));
    }
}

#[test]
fn a_verdict_may_come_later() {
    for is_taken in [true, false] {
        let (client, server, _) = x509();
        let mut network = Network::perfect(&client, &server);
        network.server_handler.later = true;
        network.connect();
        network.run(Duration::from_millis(100));
        assert_eq!(network.established(), (0, 0));
        let wanted: Vec<HandshakeId> = network
            .server_events
            .iter()
            .filter_map(|event| match event {
                Event::LookUp {
                    handshake,
                    look_up: LookUp::Peer { .. },
                    ..
                } => Some(*handshake),
                _ => None,
            })
            .collect();
        assert_eq!(wanted.len(), 1);
        let now = network.now;
        network
            .server
            .provide_verdict(wanted[0], is_taken, now, &mut network.server_handler);
        network.run(Duration::from_secs(1));
        let both = usize::from(is_taken);
        assert_eq!(network.established(), (both, both));
        network.assert_no_half_open();
    }
}

#[test]
fn a_certificate_handshake_completes_over_bad_links_with_small_datagrams() {
    let (client, server, _) = x509();
    let mut complete = 0;
    for seed in 0..60 {
        let mtu = [256, 400, 576][usize::try_from(seed % 3).expect("small")];
        let link = Link {
            loss: 100 + 50 * (seed % 3),
            duplication: 100,
            delay: Duration::from_millis(300),
        };
        let with_mtu = |config: &Config| Config {
            mtu,
            ..config.clone()
        };
        let mut network = Network::new(seed, link, &with_mtu(&client), &with_mtu(&server));
        network.connect();
        network.run(Duration::from_secs(300));
        complete += network.established().0;
        network.assert_no_half_open();
    }
    assert!(complete >= 57, "{complete} of 60");
}

#[test]
fn public_key_work_above_the_budget_is_shed_and_tried_again() {
    let (client, mut server, _) = x509();
    server.key_operations_per_second_per_prefix = 0;
    let mut network = Network::perfect(&client, &server);
    network.connect();
    network.run(Duration::from_millis(1500));
    assert!(network.server.statistics().shed >= 1);
    network.assert_no_half_open();
    server.key_operations_per_second_per_prefix = 10;
    network.server.reconfigure(Arc::new(server));
    network.run(Duration::from_secs(60));
    assert_eq!(network.established(), (1, 1));
}

/// A client with this certificate, and a server that trusts nobody but takes certificates that it knows.
fn pinned(issued: &Issued) -> (Config, Config) {
    let (client, server, _) = x509();
    let client = Config {
        certificate: Some(Arc::new(issued.certified(&[]))),
        ..client
    };
    let server = Config {
        trust: Arc::default(),
        accept_pinned_certificates: true,
        ..server
    };
    (client, server)
}

fn shake_pinned(issued: &Issued, known: &[u8]) -> Network {
    let (client, server) = pinned(issued);
    let mut network = Network::perfect(&client, &server);
    network.server_handler.pinned = vec![known.to_vec()];
    network.connect();
    network.run(Duration::from_secs(1));
    network
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_taken_when_it_is_known_by_itself() {
    let foreign = Authority::new("Other CA").client("dev1");
    for issued in [
        self_signed(ClientAuth, 2060, false),
        self_signed(ClientAuth, 2060, true),
        foreign,
    ] {
        let mut network = shake_pinned(&issued, &issued.der);
        assert_eq!(network.established(), (1, 1));
        network.exchange();
        let network = shake_pinned(&issued, b"another");
        assert_eq!(refusal(&network.server_events), Some("unknown-authority"));
        assert_eq!(network.established(), (0, 0));
        network.assert_no_half_open();
    }
}

#[test]
fn a_certificate_that_is_known_by_itself_must_be_in_date_and_for_clients() {
    for is_authority in [false, true] {
        for (issued, reason) in [
            (self_signed(ClientAuth, 2021, is_authority), "certificate-expired"),
            (
                self_signed(ServerAuth, 2060, is_authority),
                if is_authority {
                    "bad-certificate"
                } else {
                    "certificate-for-another-use"
                },
            ),
        ] {
            let network = shake_pinned(&issued, &issued.der);
            assert_eq!(refusal(&network.server_events), Some(reason));
            assert_eq!(network.established(), (0, 0));
        }
    }
}

#[test]
fn who_has_a_known_certificate_but_not_its_key_is_refused() {
    let known = self_signed(ClientAuth, 2060, false);
    let (mut client, server) = pinned(&self_signed(ClientAuth, 2060, false));
    client.connection_ids = None;
    let mut network = Network::perfect(&client, &server);
    network.server_handler.pinned = vec![known.der.clone()];
    network.connect();
    for _ in 0..2 {
        for datagram in network.take_from_client() {
            network.give_server(&datagram);
        }
        for datagram in network.take_from_server() {
            network.give_client(&datagram);
        }
    }
    let flight = records(&network.take_from_client());
    // Its first message is the certificate: the known one takes its place.
    let length = known.der.len();
    let [_, high, middle, low] = u32::try_from(length).expect("short").to_be_bytes();
    let [_, a, b, c] = u32::try_from(length + 3).expect("short").to_be_bytes();
    let body = [[a, b, c, high, middle, low].as_slice(), &known.der].concat();
    let (seq, sequence) = (
        u16::from_be_bytes([flight[0][17], flight[0][18]]),
        u64::from(flight[0][10]),
    );
    network.give_server(&plain(22, 0, sequence, &fragment(11, body.len(), seq, 0, &body)));
    for record in &flight[1..] {
        network.give_server(record);
    }
    assert_eq!(refusal(&network.server_events), Some("bad-signature"));
    assert_eq!(network.established(), (0, 0));
    network.assert_no_half_open();
}

#[test]
fn without_the_setting_only_a_path_counts() {
    let issued = self_signed(ClientAuth, 2060, false);
    let (client, server) = pinned(&issued);
    let (_, trusting, _) = x509();
    for (trust, reason) in [
        (server.trust.clone(), "no-common-suite"),
        (trusting.trust, "unknown-authority"),
    ] {
        let server = Config {
            trust,
            accept_pinned_certificates: false,
            ..server.clone()
        };
        let mut network = Network::perfect(&client, &server);
        network.server_handler.pinned = vec![issued.der.clone()];
        network.connect();
        network.run(Duration::from_secs(1));
        assert_eq!(refusal(&network.server_events), Some(reason));
        assert_eq!(network.established(), (0, 0));
    }
}

#[test]
fn who_gives_a_later_verdict_is_told_whether_there_is_a_path() {
    let (with_path, server, _) = x509();
    let alone = Config {
        certificate: Some(Arc::new(self_signed(ClientAuth, 2060, false).certified(&[]))),
        ..with_path.clone()
    };
    let server = Config {
        accept_pinned_certificates: true,
        ..server
    };
    for (client, has_path, reason) in [
        (&with_path, true, "unknown-peer"),
        (&alone, false, "unknown-authority"),
    ] {
        let mut network = Network::perfect(client, &server);
        network.server_handler.later = true;
        network.connect();
        network.run(Duration::from_millis(100));
        let asked = network.server_events.iter().find_map(|event| match event {
            Event::LookUp {
                handshake,
                look_up: LookUp::Peer { verified, .. },
                ..
            } => Some((*handshake, *verified)),
            _ => None,
        });
        let (handshake, verified) = asked.expect("it waits");
        assert_eq!(verified, has_path);
        let now = network.now;
        network
            .server
            .provide_verdict(handshake, false, now, &mut network.server_handler);
        network.run(Duration::from_secs(1));
        assert_eq!(refusal(&network.server_events), Some(reason));
    }
}
