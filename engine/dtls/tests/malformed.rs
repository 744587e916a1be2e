//! Hellos that are malformed in their vectors and extensions: the cookie is theirs, the rest is not to be had.

mod common;

use common::network::Network;
use common::psk_config;
use common::wire::{plain, records};
use dtls::{Alert, Config, Event, Suite};

fn config() -> Config {
    Config {
        suites: vec![Suite::EcdhePskCcm8, Suite::PskCcm8],
        connection_ids: None,
        ..psk_config()
    }
}

/// Offsets in the body of a `ClientHello` of ours.
#[derive(Clone, Copy)]
struct Places {
    suites: usize,
    compressions: usize,
    extensions: usize,
}

/// A network and the body of its client's hello with a cookie.
fn hello(network: &mut Network) -> (Vec<u8>, Places) {
    network.connect();
    let first = network.take_from_client().remove(0);
    network.give_server(&first);
    let verify = network.take_from_server().remove(0);
    network.give_client(&verify);
    let body = network.take_from_client().remove(0)[25..].to_vec();
    let cookie = 34 + 1 + usize::from(body[34]);
    let suites = cookie + 1 + usize::from(body[cookie]);
    let length = usize::from(u16::from_be_bytes([body[suites], body[suites + 1]]));
    let compressions = suites + 2 + length;
    let places = Places {
        suites,
        compressions,
        extensions: compressions + 2,
    };
    (body, places)
}

fn u16_at(body: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([body[at], body[at + 1]])
}

fn add(body: &mut [u8], at: usize, more: usize) {
    let number = u16_at(body, at) + u16::try_from(more).expect("short");
    body[at..at + 2].copy_from_slice(&number.to_be_bytes());
}

/// Appends an extension.
fn extend(body: &mut Vec<u8>, places: Places, kind: u16, content: &[u8]) {
    body.extend_from_slice(&kind.to_be_bytes());
    body.extend_from_slice(&u16::try_from(content.len()).expect("short").to_be_bytes());
    body.extend_from_slice(content);
    add(body, places.extensions, 4 + content.len());
}

/// What the server answers to the changed hello; `None` is its flight.
fn answer(change: impl FnOnce(&mut Vec<u8>, Places)) -> Option<Alert> {
    let mut network = Network::perfect(&config(), &config());
    let (mut body, places) = hello(&mut network);
    change(&mut body, places);
    let message = common::wire::fragment(1, body.len(), 1, 0, &body);
    network.give_server(&plain(22, 0, 7, &message));
    let sent = records(&network.take_from_server());
    let first = sent.first().expect("an answer");
    if first[0] == 22 {
        assert_eq!(first[13], 2, "a ServerHello");
        return None;
    }
    assert_eq!((first[0], first[13]), (21, 2), "a fatal alert");
    assert!(matches!(network.server_events.last(), Some(Event::Failed { .. })));
    network.assert_no_half_open();
    Alert::from_code(first[14])
}

const DECODE_ERROR: Option<Alert> = Some(Alert::DecodeError);

#[test]
fn duplicate_extensions_are_a_fatal_decode_error() {
    assert_eq!(answer(|_, _| ()), None, "unchanged");
    let twice = |kind: u16, content: &'static [u8]| {
        move |body: &mut Vec<u8>, places: Places| {
            extend(body, places, kind, content);
            extend(body, places, kind, content);
        }
    };
    assert_eq!(answer(twice(0x4242, b"unknown")), DECODE_ERROR);
    assert_eq!(answer(twice(54, b"\x01x")), DECODE_ERROR);
    assert_eq!(answer(|body, places| extend(body, places, 23, &[])), DECODE_ERROR);
}

#[test]
fn trailing_bytes_after_any_vector_are_a_fatal_decode_error() {
    assert_eq!(
        answer(|body, _| body.push(0)),
        DECODE_ERROR,
        "after the extensions"
    );
    let behind = |kind: u16, content: &'static [u8]| {
        move |body: &mut Vec<u8>, places: Places| {
            extend(body, places, kind, content);
        }
    };
    for (kind, content) in [
        (54, b"\x01xy".as_slice()),
        (1, &[1, 1]),
        (28, &[1, 0, 0]),
        (0xff01, &[0, 0]),
        (13, &[0, 2, 4, 3, 0]),
        (20, &[1, 2, 2]),
        (0, &[0, 6, 0, 0, 1, b'x', 0, 0]),
    ] {
        assert_eq!(answer(behind(kind, content)), DECODE_ERROR, "{kind}");
    }
    let in_place = |kind: u16| {
        move |body: &mut Vec<u8>, places: Places| {
            let at = (places.extensions + 2..body.len())
                .find(|at| u16_at(body, *at) == kind && *at + 4 <= body.len());
            let at = at.expect("there");
            add(body, at + 2, 1);
            let end = at + 4 + usize::from(u16_at(body, at + 2)) - 1;
            body.insert(end, 0);
            add(body, places.extensions, 1);
        }
    };
    for kind in [23, 10, 11] {
        assert_eq!(answer(in_place(kind)), DECODE_ERROR, "{kind}");
    }
}

#[test]
fn lists_of_odd_or_no_length_are_a_fatal_decode_error() {
    let suites = |bytes: &'static [u8]| {
        move |body: &mut Vec<u8>, places: Places| {
            let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
            body.splice(
                places.suites..places.compressions,
                length.iter().chain(bytes).copied(),
            );
        }
    };
    assert_eq!(answer(suites(&[0xc0, 0xa8])), None);
    assert_eq!(answer(suites(&[0xc0, 0xa8, 0])), DECODE_ERROR);
    assert_eq!(answer(suites(&[])), DECODE_ERROR);
    for (kind, content) in [
        (13, [0, 3, 4, 3, 0].as_slice()),
        (13, &[0, 0]),
        (20, &[0]),
        (0, &[0, 0]),
    ] {
        assert_eq!(
            answer(|body, places| extend(body, places, kind, content)),
            DECODE_ERROR,
            "{kind}"
        );
    }
}

#[test]
fn vectors_longer_than_what_holds_them_are_a_fatal_decode_error() {
    assert_eq!(
        answer(|body, places| add(body, places.suites, 2000)),
        DECODE_ERROR
    );
    assert_eq!(
        answer(|body, places| body[places.compressions] = 255),
        DECODE_ERROR
    );
    assert_eq!(
        answer(|body, places| add(body, places.extensions, 1)),
        DECODE_ERROR
    );
    assert_eq!(
        answer(|body, places| extend(body, places, 54, &[9, 1, 2])),
        DECODE_ERROR
    );
    assert_eq!(
        answer(|body, places| {
            let at = places.extensions + 4;
            add(body, at, 4000);
        }),
        DECODE_ERROR
    );
}

#[test]
fn more_suites_or_extensions_than_anybody_needs_are_a_fatal_decode_error() {
    let many = |body: &mut Vec<u8>, places: Places| {
        let count = 64;
        for _ in 0..count {
            body.splice(places.suites + 2..places.suites + 2, [0x13, 0x37]);
        }
        add(body, places.suites, 2 * count);
    };
    assert_eq!(answer(many), DECODE_ERROR);
    assert_eq!(
        answer(|body, places| {
            for kind in 0..33 {
                extend(body, places, 0x4200 + kind, &[]);
            }
        }),
        DECODE_ERROR
    );
}

#[test]
fn compression_and_limits_out_of_range_are_an_illegal_parameter() {
    let illegal = Some(Alert::IllegalParameter);
    assert_eq!(answer(|body, places| body[places.compressions + 1] = 1), illegal);
    for (kind, content) in [(1, [0].as_slice()), (1, &[5]), (28, &[0, 63])] {
        assert_eq!(
            answer(|body, places| extend(body, places, kind, content)),
            illegal
        );
    }
    for (kind, content) in [
        (1, [4].as_slice()),
        (28, &[0, 64]),
        (53, b"old id"),
        (43, &[2, 0xfe, 0xfc]),
    ] {
        assert_eq!(
            answer(|body, places| extend(body, places, kind, content)),
            None,
            "{kind}"
        );
    }
}

#[test]
fn a_renegotiation_that_is_none_is_refused() {
    let refused = Some(Alert::HandshakeFailure);
    assert_eq!(
        answer(|body, places| extend(body, places, 0xff01, &[1, 7])),
        refused
    );
    assert_eq!(answer(|body, places| extend(body, places, 0xff01, &[0])), None);
}
