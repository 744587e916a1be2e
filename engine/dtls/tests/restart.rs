//! Associations that outlive a server: devices go on, no record number is used twice, no copy is restored.

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use common::network::{Network, client_address};
use common::{Seeded, arc, psk_config};
use dtls::{Config, Event, Exported, ImportError, SealingKey, SendError, Server};

fn key() -> SealingKey {
    SealingKey::new([7; 32])
}

fn fresh_server(config: &Config, seed: u64) -> Server {
    Server::new(arc(config), Box::new(Seeded(seed)))
}

/// A network whose server has exported its association and confirmed it.
fn exported(config: &Config) -> (Network, Exported) {
    let mut network = Network::perfect(config, config);
    network.shake_hands();
    let association = network.association();
    let exported = network.server.export(association, &key()).expect("there");
    network.server.confirm(association, exported.mark);
    network.exchange();
    (network, exported)
}

#[test]
fn a_device_goes_on_after_a_crash_also_from_a_new_address() {
    let config = psk_config();
    let (mut network, row) = exported(&config);
    let handshakes = network.log.len();
    network.server = fresh_server(&config, 99);
    let now = network.now;
    let association = network
        .server
        .import(&row.sealed, row.record, row.generation + 1, &key(), now)
        .expect("claimed");
    network.client_address = SocketAddr::from(([203, 0, 113, 9], 1234));
    network.client.send(b"still me").expect("established");
    network.run(Duration::from_secs(1));
    assert_eq!(
        network.server_handler.payloads().last().copied(),
        Some(b"still me".as_slice())
    );
    assert_eq!(
        network.server_handler.fresh.last(),
        Some(&false),
        "what came since the export is unknown"
    );
    network.server.send(association, b"welcome").expect("reserved");
    network.run(Duration::from_secs(1));
    assert_eq!(
        network.client_handler.payloads().last().copied(),
        Some(b"welcome".as_slice())
    );
    assert_eq!(network.log.len(), handshakes + 2, "no handshake");
    assert!(matches!(network.server_events.last(), Some(Event::Moved { .. })));
}

#[test]
fn a_device_with_cbc_goes_on_after_a_crash() {
    let config = Config {
        suites: vec![dtls::Suite::PskCbc],
        ..psk_config()
    };
    let (mut network, row) = exported(&config);
    network.server = fresh_server(&config, 99);
    let now = network.now;
    network
        .server
        .import(&row.sealed, row.record, row.generation + 1, &key(), now)
        .expect("claimed");
    network.client.send(b"still me").expect("established");
    network.run(Duration::from_secs(1));
    let last = network.server_handler.payloads().last().copied();
    assert_eq!(last, Some(b"still me".as_slice()));
}

#[test]
fn a_clean_stop_keeps_the_exact_window() {
    let config = psk_config();
    let mut network = Network::perfect(&config, &config);
    network.shake_hands();
    network.client.send(b"once").expect("established");
    let once = network.take_from_client().remove(0);
    network.give_server(&once);
    let association = network.association();
    let row = network.server.suspend(association, &key()).expect("there");
    assert!(
        network.server.peer(association).is_none(),
        "a suspended association is gone"
    );
    network.server = fresh_server(&config, 5);
    let now = network.now;
    let restored = network
        .server
        .import(&row.sealed, row.record, row.generation + 1, &key(), now)
        .expect("claimed");
    network.give_server(&once);
    assert_eq!(network.server.statistics().replayed, 1);
    network.client.send(b"twice").expect("established");
    network.run(Duration::from_secs(1));
    assert_eq!(network.server_handler.fresh, [true, true]);
    network.server.send(restored, b"pong").expect("reserved");
    network.run(Duration::from_secs(1));
    assert_eq!(network.client_handler.payloads(), [b"pong"]);
}

#[test]
fn a_clean_stop_vouches_for_the_window_of_the_next_start_only() {
    let config = psk_config();
    let mut network = Network::perfect(&config, &config);
    network.shake_hands();
    let association = network.association();
    let row = network.server.suspend(association, &key()).expect("there");
    let import = |network: &mut Network, seed, claims| {
        network.server = fresh_server(&config, seed);
        let (sealed, generation) = (&row.sealed, row.generation + claims);
        let imported = network
            .server
            .import(sealed, row.record, generation, &key(), network.now);
        imported.expect("claimed");
    };
    import(&mut network, 5, 1);
    network.client.send(b"once").expect("established");
    let once = network.take_from_client().remove(0);
    network.give_server(&once);
    // It dies without an export: the row still says what was so before the first start.
    import(&mut network, 6, 2);
    network.give_server(&once);
    assert_eq!(network.server_handler.payloads(), [b"once", b"once"]);
    assert_eq!(
        network.server_handler.fresh,
        [true, false],
        "a replay is not believed"
    );
}

#[test]
fn a_restored_association_is_unfresh_until_its_peer_has_answered() {
    let config = psk_config();
    let (mut network, row) = exported(&config);
    network.client.send(b"before").expect("established");
    let before = network.take_from_client().remove(0);
    network.give_server(&before);
    network.server = fresh_server(&config, 99);
    let now = network.now;
    let association = network
        .server
        .import(&row.sealed, row.record, row.generation + 1, &key(), now)
        .expect("claimed");
    network.server.confirm_fresh(association, 3);
    network.give_server(&before);
    assert_eq!(network.server.statistics().replayed, 1, "below the new edge");
    network.client.send(b"a").expect("established");
    network.client.send(b"b").expect("established");
    network.run(Duration::from_secs(1));
    assert_eq!(network.server_handler.fresh.last(), Some(&true));
}

#[test]
fn an_import_needs_a_claim_of_its_own_and_the_right_key_and_record() {
    let config = psk_config();
    let (network, row) = exported(&config);
    let mut server = fresh_server(&config, 99);
    let now = network.now;
    let import = |server: &mut Server, sealed: &[u8], record, generation, key: &SealingKey| {
        server.import(sealed, record, generation, key, now)
    };
    let unreadable = Err(ImportError::Unreadable);
    let next = row.generation + 1;
    assert_eq!(
        import(&mut server, &row.sealed, row.record, row.generation, &key()),
        Err(ImportError::Unclaimed)
    );
    assert_eq!(
        import(&mut server, &row.sealed, row.record ^ 1, next, &key()),
        unreadable
    );
    let other = SealingKey::new([8; 32]);
    assert_eq!(
        import(&mut server, &row.sealed, row.record, next, &other),
        unreadable
    );
    for at in 0..row.sealed.len() {
        let mut damaged = row.sealed.clone();
        damaged[at] ^= 0x20;
        assert_eq!(
            import(&mut server, &damaged, row.record, next, &key()),
            unreadable,
            "byte {at}"
        );
        assert_eq!(
            import(&mut server, &row.sealed[..at], row.record, next, &key()),
            unreadable
        );
    }
    assert!(import(&mut server, &row.sealed, row.record, next, &key()).is_ok());
    assert_eq!(
        import(&mut server, &row.sealed, row.record, next, &key()),
        Err(ImportError::Duplicate)
    );
    assert_eq!(
        import(&mut server, &row.sealed, row.record, next + 1, &key()),
        Err(ImportError::Duplicate),
        "its peer has an association"
    );
}

/// Record numbers of epoch 1 in datagrams of the server.
fn numbers(log: &[(bool, Vec<u8>)]) -> Vec<u64> {
    let of_server = log.iter().filter(|(to_server, _)| !to_server);
    of_server
        .filter(|(_, datagram)| datagram[0] == 25 && datagram[4] == 1)
        .map(|(_, datagram)| u64::from_be_bytes(datagram[3..11].try_into().expect("8 bytes")))
        .collect()
}

#[test]
fn nonces_never_repeat_over_crashes_restarts_and_late_exports() {
    let config = psk_config();
    let mut network = Network::perfect(&config, &config);
    network.shake_hands();
    let mut association = network.association();
    let mut random = Seeded(4711);
    let mut row = network.server.export(association, &key()).expect("there");
    network.server.confirm(association, row.mark);
    let mut claims = row.generation;
    for _ in 0..60 {
        for _ in 0..random.below(30) {
            match network.server.send(association, b"x") {
                Ok(()) => {}
                Err(error) => assert_eq!(error, SendError::Reserved),
            }
        }
        match random.below(4) {
            // Stored and confirmed.
            0 => {
                row = network.server.export(association, &key()).expect("there");
                network.server.confirm(association, row.mark);
            }
            // Stored, but the crash comes before the confirmation.
            1 => row = network.server.export(association, &key()).expect("there"),
            // The crash comes before it is stored.
            2 => drop(network.server.export(association, &key())),
            _ => {}
        }
        network.run(Duration::from_millis(1));
        network.server = fresh_server(&config, random.next());
        claims += 1;
        let now = network.now;
        association = network
            .server
            .import(&row.sealed, row.record, claims, &key(), now)
            .expect("claimed");
    }
    let sent = numbers(&network.log);
    let distinct: BTreeSet<_> = sent.iter().collect();
    assert!(sent.len() > 300, "{}", sent.len());
    assert_eq!(distinct.len(), sent.len());
}

#[test]
fn an_exported_association_sends_only_what_is_reserved_and_asks_for_more_in_time() {
    let config = psk_config();
    let (mut network, row) = exported(&config);
    let association = network.association();
    let mut sent = 0_u64;
    while network.server.send(association, b"x").is_ok() {
        network.server.sent(1);
        sent += 1;
    }
    assert!(sent < 1 << 16 && sent > (1 << 16) - 10, "{sent}");
    assert_eq!(network.server.send(association, b"x"), Err(SendError::Reserved));
    network.run(Duration::from_millis(1));
    let asked = network
        .server_events
        .iter()
        .filter(|event| matches!(event, Event::Reserve { .. }));
    assert_eq!(asked.count(), 1);
    let next = network.server.export(association, &key()).expect("there");
    assert_eq!(next.record, row.record);
    assert_eq!(
        network.server.send(association, b"x"),
        Err(SendError::Reserved),
        "not stored yet"
    );
    network.server.confirm(association, next.mark);
    assert_eq!(network.server.send(association, b"x"), Ok(()));
}

#[test]
fn an_export_is_small_and_a_client_may_sleep_on_one() {
    let config = psk_config();
    let (mut network, row) = exported(&config);
    assert!(row.sealed.len() <= 200, "{}", row.sealed.len());
    let asleep = network.client.suspend(&key()).expect("established");
    assert!(network.client.send(b"x").is_err());
    let now = network.now;
    network
        .client
        .import(&asleep.sealed, asleep.record, asleep.generation + 1, &key(), now)
        .expect("claimed");
    network.exchange();
    assert_eq!(network.client_address, client_address());
}

#[test]
fn both_associations_of_an_identity_are_restored_and_no_third() {
    let config = psk_config();
    let mut rows = Vec::new();
    for seed in 0..3 {
        let mut network = Network::new(seed, common::network::Link::default(), &config, &config);
        network.client_address =
            SocketAddr::from(([203, 0, 113, 9], 1000 + u16::try_from(seed).expect("small")));
        network.shake_hands();
        let association = network.association();
        rows.push(network.server.suspend(association, &key()).expect("there"));
    }
    let mut server = fresh_server(&config, 5);
    let now = dtls::Instant::from_micros(1);
    let mut restored = rows.iter().map(|row| {
        let imported = server.import(&row.sealed, row.record, row.generation + 1, &key(), now);
        imported.map(drop)
    });
    assert_eq!(restored.next(), Some(Ok(())));
    assert_eq!(restored.next(), Some(Ok(())));
    assert_eq!(restored.next(), Some(Err(ImportError::Duplicate)));
    drop(restored);
    let identity = dtls::Identity::Psk(common::IDENTITY.into());
    assert_eq!(server.associations_of(&identity).count(), 2);
}

#[test]
fn records_follow_one_another_and_an_association_keeps_its_own() {
    let config = psk_config();
    let mut network = Network::perfect(&config, &config);
    network.shake_hands();
    let first = network.association();
    let one = network.server.export(first, &key()).expect("there");
    network.shake_hands_again();
    let second = network.association();
    let two = network.server.export(second, &key()).expect("there");
    assert_ne!(first, second);
    assert_eq!(
        two.record,
        one.record.wrapping_add(1),
        "neighbours in the store's index"
    );
    let again = network.server.export(second, &key()).expect("there");
    assert_eq!(again.record, two.record);

    // A restored association has its number for itself.
    let mut server = fresh_server(&config, 9);
    let now = dtls::Instant::from_micros(1);
    let claimed = again.generation + 1;
    let association = server
        .import(&again.sealed, again.record, claimed, &key(), now)
        .expect("intact");
    let restored = server.export(association, &key()).expect("there");
    assert_eq!((restored.record, restored.generation), (again.record, claimed));
}
