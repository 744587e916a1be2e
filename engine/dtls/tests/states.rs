//! Every message in every state of both roles, as state learning does it ("Analysis of DTLS Implementations Using
//! Protocol State Fuzzing", USENIX Security 2020): what has no place ends the handshake or changes nothing, and there
//! is one way only to an association.

mod common;

use std::collections::VecDeque;
use std::time::Duration;

use common::network::Network;
use common::pki::raw_key_config;
use common::psk_config;
use common::wire::{fragment, plain, records};
use dtls::{Config, Event, Suite};

const HANDSHAKE: u8 = 22;
const CHANGE_CIPHER_SPEC: u8 = 20;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;
const SERVER_KEY_EXCHANGE: u8 = 12;
const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;
/// Those that exist and are no message of epoch 1 and no request for another handshake.
const MESSAGES: [u8; 10] = [1, 2, 3, 4, 11, 12, 13, 14, 15, 16];

/// A handshake that is carried to one side record by record.
struct Run {
    network: Network,
    /// The side that is looked at.
    server: bool,
    queue: VecDeque<Vec<u8>>,
    hello: Vec<u8>,
    given: Vec<Vec<u8>>,
    /// Number of the message that is expected.
    seq: u16,
}

impl Run {
    /// After the cookie: the hello that has it is on its way.
    fn start(config: &Config, server: bool, resume: bool) -> Self {
        let mut network = Network::perfect(config, config);
        if resume {
            network.shake_hands();
        }
        network.connect();
        let first = network.take_from_client().remove(0);
        network.give_server(&first);
        let verify = network.take_from_server().remove(0);
        network.give_client(&verify);
        let hello = network.take_from_client().remove(0);
        let mut run = Self {
            network,
            server,
            queue: VecDeque::new(),
            hello: hello.clone(),
            given: Vec::new(),
            seq: 1,
        };
        if server {
            run.queue.push_back(hello);
        } else {
            run.network.give_server(&hello);
        }
        run
    }

    fn give(&mut self, record: &[u8]) {
        if self.server {
            self.network.give_server(record);
        } else {
            self.network.give_client(record);
        }
    }

    /// The next honest record; `None` when the handshake is over.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.queue.is_empty() {
            let (ours, theirs);
            if self.server {
                ours = self.network.take_from_server();
                for datagram in &ours {
                    self.network.give_client(datagram);
                }
                theirs = self.network.take_from_client();
            } else {
                ours = self.network.take_from_client();
                for datagram in &ours {
                    self.network.give_server(datagram);
                }
                theirs = self.network.take_from_server();
            }
            self.queue.extend(records(&theirs));
        }
        self.queue.pop_front()
    }

    fn advance(&mut self, record: Vec<u8>) {
        self.give(&record);
        if record[0] == HANDSHAKE && record[3..5] == [0, 0] {
            self.seq += 1;
        }
        self.given.push(record);
    }

    fn has_failed(&self) -> Option<&'static str> {
        let events = if self.server {
            &self.network.server_events
        } else {
            &self.network.client_events
        };
        events.iter().find_map(|event| match event {
            Event::Failed { reason, .. } => Some(*reason),
            _ => None,
        })
    }
}

/// What may be in the place of the message that comes, too.
fn alternative(next: &[u8], given: &[Vec<u8>]) -> Option<u8> {
    let with_certificate = given
        .iter()
        .any(|record| record[0] == HANDSHAKE && record[13] == 11);
    match *next.get(13)? {
        SERVER_HELLO => Some(HELLO_VERIFY_REQUEST),
        SERVER_HELLO_DONE if !with_certificate => Some(SERVER_KEY_EXCHANGE),
        CERTIFICATE_REQUEST => Some(SERVER_HELLO_DONE),
        _ => None,
    }
}

fn configs() -> impl Iterator<Item = (Config, bool)> {
    let plain = |config: Config| Config {
        connection_ids: None,
        ..config
    };
    let ecdhe = Config {
        suites: vec![Suite::EcdhePskCcm8],
        ..psk_config()
    };
    [
        (plain(psk_config()), false),
        (plain(ecdhe), false),
        (plain(raw_key_config()), false),
        (plain(psk_config()), true),
        (plain(raw_key_config()), true),
    ]
    .into_iter()
}

/// Runs a handshake to its `state`th record, hands over what `inject` makes, and goes on honestly if that changed
/// nothing. `None` when there is no such state.
fn try_at(
    (config, resume): &(Config, bool),
    server: bool,
    state: usize,
    inject: impl Fn(&Run, Option<&[u8]>) -> Option<(Vec<u8>, bool)>,
) -> Option<()> {
    let mut run = Run::start(config, server, *resume);
    let mut next = run.next();
    for _ in 0..state {
        run.advance(next?);
        next = run.next();
    }
    let before = run.network.established();
    let Some((record, is_fatal)) = inject(&run, next.as_deref()) else {
        return Some(());
    };
    run.give(&record);
    let label = format!("{server} {resume} {state} {:?} {record:02x?}", config.suites);
    assert_eq!(run.network.established(), before, "{label}");
    if is_fatal {
        assert_eq!(run.has_failed(), Some("unexpected-message"), "{label}");
        if server {
            run.network.assert_no_half_open();
        }
        return Some(());
    }
    assert_eq!(run.has_failed(), None, "{label}");
    while let Some(record) = next {
        run.advance(record);
        next = run.next();
    }
    run.network.run(Duration::from_secs(5));
    let count = 1 + usize::from(*resume);
    assert_eq!(run.network.established(), (count, count), "{label}");
    run.network.exchange();
    Some(())
}

/// Applies it to every state of both roles; how many there were.
fn everywhere(inject: impl Fn(&Run, Option<&[u8]>) -> Option<(Vec<u8>, bool)>) -> usize {
    let mut states = 0;
    for config in configs() {
        for server in [true, false] {
            for state in 0.. {
                if try_at(&config, server, state, &inject).is_none() {
                    break;
                }
                states += 1;
            }
        }
    }
    states
}

#[test]
fn a_handshake_message_that_has_no_place_is_fatal_in_every_state() {
    let mut states = 0;
    for kind in MESSAGES {
        states = everywhere(|run, next| {
            let next = next?;
            let is_next = next[0] == HANDSHAKE && next[3..5] == [0, 0] && next[13] == kind;
            if is_next || alternative(next, &run.given) == Some(kind) && !run.server {
                return None;
            }
            let body = if kind == CLIENT_HELLO {
                run.hello[25..].to_vec()
            } else {
                Vec::new()
            };
            let record = plain(HANDSHAKE, 0, 500, &fragment(kind, body.len(), run.seq, 0, &body));
            // Before a hello there is nothing that could fail.
            Some((record, !(run.server && run.given.is_empty())))
        });
    }
    assert!(states > 40, "{states}");
}

#[test]
fn messages_that_do_not_exist_or_belong_elsewhere_change_nothing_in_any_state() {
    let known = MESSAGES;
    for kind in (0..=30).chain([99, 255]).filter(|kind| !known.contains(kind)) {
        everywhere(|run, _| {
            let body: &[u8] = if kind == 20 { &[0; 12] } else { &[] };
            let fragment = fragment(kind, body.len(), run.seq, 0, body);
            Some((plain(HANDSHAKE, 0, 500, &fragment), false))
        });
    }
}

#[test]
fn records_that_are_no_handshake_change_nothing_in_any_state() {
    let strange: [(u8, u16, &[u8]); 12] = [
        (CHANGE_CIPHER_SPEC, 0, &[2]),
        (CHANGE_CIPHER_SPEC, 0, &[1, 1]),
        (CHANGE_CIPHER_SPEC, 0, &[]),
        (CHANGE_CIPHER_SPEC, 1, &[1]),
        (21, 0, &[2, 40]),
        (21, 0, &[1, 0]),
        (21, 1, &[7; 30]),
        (23, 0, b"data"),
        (23, 1, &[7; 40]),
        (HANDSHAKE, 2, &[7; 40]),
        (HANDSHAKE, 0xffff, &[7; 40]),
        (HANDSHAKE, 0, &[]),
    ];
    for (kind, epoch, body) in strange {
        everywhere(|_, _| Some((plain(kind, epoch, 500, body), false)));
    }
}

#[test]
fn change_cipher_spec_out_of_place_changes_nothing_in_any_state() {
    everywhere(|_, next| {
        let in_place = next.is_some_and(|next| next[0] == CHANGE_CIPHER_SPEC);
        (!in_place).then(|| (plain(CHANGE_CIPHER_SPEC, 0, 500, &[1]), false))
    });
}

#[test]
fn a_record_that_comes_again_changes_nothing_in_any_state() {
    for back in 1..8 {
        everywhere(|run, _| {
            let at = run.given.len().checked_sub(back)?;
            Some((run.given[at].clone(), false))
        });
    }
}
