//! The core driven by hand: datagrams and virtual time in, events and datagrams out.

use super::*;
use crate::blob::Blob;
use crate::settings::Settings;
use coap::{Code, Encoder, Exchange, Kind, Message, Response, Token, number};

struct Rig {
    core: Core,
    shared: Arc<Shared>,
    now: Instant,
    mid: u16,
}

fn peer(port: u16) -> PeerKey {
    PeerKey::new(0, ([192, 0, 2, 1], port).into())
}

impl Rig {
    fn new(settings: &Settings) -> Self {
        let checked = settings.check().unwrap();
        let shared = Arc::new(Shared::new(checked.max_actions).unwrap());
        let core = Core::new(checked, 1, &shared);
        Self {
            core,
            shared,
            now: Instant::ZERO,
            mid: 0,
        }
    }

    /// Sends a request without payload and returns the codes of what goes out for it.
    fn ask(&mut self, from: PeerKey, code: Code, path: &[&str]) -> Vec<u8> {
        self.mid += 1;
        let mut datagram = Vec::new();
        let mut encoder = Encoder::new(&mut datagram, Kind::Confirmable, code, self.mid, Token::EMPTY);
        encoder.each(number::URI_PATH, path);
        self.core.datagram(from, &datagram, self.now);
        self.sent()
    }

    fn sent(&mut self) -> Vec<u8> {
        let mut codes = Vec::new();
        while let Some(transmit) = self.core.stack.poll_transmit() {
            codes.push(Message::parse(transmit.datagram).unwrap().code.0);
        }
        codes
    }

    fn events(&mut self) -> Vec<Event> {
        self.core.reporter.publish();
        self.shared.drain(usize::MAX)
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.core.next_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.core.timeout(self.now);
        }
        self.now = end;
    }

    fn statistic(&self, name: &str) -> u64 {
        let mut statistics = Vec::new();
        self.core.statistics(&mut statistics);
        statistics.iter().find(|(key, _)| *key == name).unwrap().1
    }
}

fn exchange(event: &Event) -> Exchange {
    match event {
        Event::Request { exchange, .. } => Exchange(*exchange),
        other => panic!("not a request: {other:?}"),
    }
}

#[test]
fn a_panic_costs_one_peer_its_state_and_nobody_else() {
    let mut rig = Rig::new(&Settings::default());
    for port in [1, 2] {
        rig.ask(peer(port), Code::GET, &["x"]);
    }
    let waiting: Vec<Exchange> = rig.events().iter().map(exchange).collect();
    assert_eq!(rig.ask(peer(1), Code::GET, &["panic"]), []);
    assert_eq!((rig.statistic("panics"), rig.statistic("exchanges")), (1, 1));
    for exchange in waiting {
        let response = Box::new(Response::new(Code::CONTENT));
        rig.core.act(Action::Respond { exchange, response }, rig.now);
    }
    assert_eq!(rig.sent(), [Code::CONTENT.0]);
    rig.ask(peer(1), Code::GET, &["x"]);
    assert_eq!(rig.events().len(), 1);
}

#[test]
fn requests_above_the_bound_get_5_03_also_within_one_batch() {
    let mut rig = Rig::new(&Settings {
        max_events: 3,
        ..Settings::default()
    });
    for _ in 0..3 {
        assert_eq!(rig.ask(peer(1), Code::GET, &["x"]), []);
    }
    assert_eq!(rig.ask(peer(2), Code::GET, &["x"]), [Code::SERVICE_UNAVAILABLE.0]);
    assert_eq!(rig.events().len(), 3);
    assert_eq!(rig.ask(peer(2), Code::GET, &["x"]), []);
}

#[test]
fn updates_are_reported_within_a_second_and_while_python_stalls_not_again() {
    let mut rig = Rig::new(&Settings::default());
    let location = "x1".to_owned();
    rig.core.act(
        Action::Keep {
            location,
            owner: peer(1).principal(),
        },
        rig.now,
    );
    for _ in 0..3 {
        assert_eq!(rig.ask(peer(1), Code::POST, &["rd", "x1"]), [Code::CHANGED.0]);
    }
    rig.core.timeout(rig.now);
    assert!(rig.events().is_empty());
    rig.pass(REPORT_PERIOD);
    assert!(matches!(&rig.events()[..], [Event::Alive(report)] if report.len() == 1));
    for _ in 0..10 {
        rig.ask(peer(1), Code::POST, &["rd", "x1"]);
        rig.core.timeout(rig.now);
        rig.pass(REPORT_PERIOD);
        rig.core.reporter.publish();
    }
    assert_eq!(rig.shared.events_waiting(), 4);
    assert_eq!(rig.core.next_timeout().map(|due| due > rig.now), Some(true));
    rig.events();
    rig.core.timeout(rig.now);
    rig.pass(REPORT_PERIOD);
    assert_eq!(rig.events().len(), 1);
}

#[test]
fn a_request_that_finds_no_room_fails_as_busy() {
    let mut rig = Rig::new(&Settings {
        max_queued: 1,
        ..Settings::default()
    });
    for handle in 1..=3 {
        let request = Box::new(coap::Request::new(Code::GET, &["x"]));
        let delivery = coap::Delivery::default();
        rig.core.act(
            Action::Request {
                handle,
                to: To::Key(peer(1)),
                request,
                delivery,
            },
            rig.now,
        );
    }
    let events = rig.events();
    assert!(matches!(
        events[..],
        [Event::Failure {
            handle: 3,
            reason: reason::BUSY,
            ..
        }]
    ));
}

#[test]
fn a_cancelled_request_ends_and_leaves_nothing() {
    let mut rig = Rig::new(&Settings::default());
    let request = Box::new(coap::Request::new(Code::GET, &["x"]));
    let delivery = coap::Delivery::default();
    let start = Action::Request {
        handle: 9,
        to: To::Key(peer(1)),
        request,
        delivery,
    };
    rig.core.act(start, rig.now);
    rig.core.act(Action::Cancel { handle: 9 }, rig.now);
    let events = rig.events();
    assert!(matches!(
        events[..],
        [Event::Failure {
            handle: 9,
            reason: "cancelled",
            ..
        }]
    ));
    assert!(rig.core.handles.is_empty() && rig.core.calls.is_empty());
}

#[test]
fn a_download_is_followed_to_its_end_and_begins_anew() {
    let path = std::env::temp_dir().join(format!("endpoint-core-{}", std::process::id()));
    std::fs::write(&path, vec![5; 40]).unwrap();
    let blob = Arc::new(Blob::open([3; 32], &path).unwrap());
    std::fs::remove_file(&path).unwrap();
    let mut rig = Rig::new(&Settings {
        block_size: 16,
        progress_bytes: 32,
        ..Settings::default()
    });
    let offer = Action::Offer {
        path: vec!["fw".into()],
        blob,
        owner: peer(1).owner(),
    };
    rig.core.act(offer, rig.now);
    let get = |rig: &mut Rig, num: u32, mid: u16| {
        let mut datagram = Vec::new();
        let mut encoder = Encoder::new(&mut datagram, Kind::Confirmable, Code::GET, mid, Token::EMPTY);
        encoder.option(number::URI_PATH, b"fw");
        encoder.block(number::BLOCK2, coap::Block::new(num, false, 16));
        rig.core.datagram(peer(1), &datagram, rig.now);
        assert_eq!(rig.sent(), [Code::CONTENT.0]);
    };
    // Block 1 is asked for twice, and the second request is retransmitted once.
    for (num, mid) in [(0, 1), (1, 2), (1, 3), (1, 3), (2, 4), (0, 5), (1, 6)] {
        get(&mut rig, num, mid);
    }
    let progress: Vec<(u64, u64)> = rig
        .events()
        .iter()
        .map(|event| match event {
            Event::Download(download) => (download.offset, download.repeated),
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(progress, [(32, 0), (40, 1), (32, 0)]);
    rig.core.act(Action::RemoveBlob { digest: [3; 32] }, rig.now);
    assert_eq!(rig.ask(peer(1), Code::GET, &["fw"]), [Code::NOT_FOUND.0]);
    assert_eq!(
        rig.ask(PeerKey::new(0, ([192, 0, 2, 9], 1).into()), Code::GET, &["fw"]),
        [Code::FORBIDDEN.0]
    );
}
