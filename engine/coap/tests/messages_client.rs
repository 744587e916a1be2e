//! Requests of ours and the message layer under them (RFC 7252), against one stack with a hand-made peer.

mod common;

use std::time::Duration;

use coap::{Code, Config, Delivery, Event, Kind, Reason, Request, RequestError, number};
use common::{Bench, Msg, PEER, content, secs};

fn get(mid: u16, token: &[u8]) -> Msg {
    Msg::con(Code::GET, mid, token).path(&["a", "b"])
}

fn start(bench: &mut Bench, path: &str) -> (coap::Handle, Msg) {
    let request = Request::new(Code::GET, &[path]);
    let handle = bench
        .stack
        .request(PEER, request, Delivery::default(), bench.now)
        .expect("room");
    (handle, bench.one_sent())
}

fn assert_answer(bench: &mut Bench, handle: coap::Handle, payload: &[u8]) {
    match bench.one_event() {
        Event::Response {
            handle: found,
            peer,
            response,
        } => {
            assert_eq!((found, peer, &response.payload[..]), (handle, PEER, payload));
        }
        other => panic!("{other:?}"),
    }
}

fn assert_failure(bench: &mut Bench, handle: coap::Handle, expected: Reason) {
    match bench.one_event() {
        Event::Failure {
            handle: found,
            reason,
            ..
        } => assert_eq!((found, reason), (handle, expected)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rfc7252_4_2_a_request_is_retransmitted_with_growing_waits_and_then_times_out() {
    let mut bench = Bench::new();
    let (handle, sent) = start(&mut bench, "x");
    let mut waits = Vec::new();
    let mut last = bench.now;
    while bench.stack.next_timeout().is_some() && bench.stack.statistics().calls > 0 {
        let again = bench.pass(Duration::from_millis(10));
        if !again.is_empty() {
            assert_eq!(again, std::slice::from_ref(&sent), "the same message");
            waits.push(bench.now - last);
            last = bench.now;
        }
    }
    assert_eq!(waits.len(), 4);
    assert!(
        waits[0] >= secs(2) && waits[0] <= Duration::from_millis(3020),
        "{waits:?}"
    );
    for pair in waits.windows(2) {
        let ratio = pair[1].as_secs_f64() / pair[0].as_secs_f64();
        assert!((1.98..2.02).contains(&ratio), "{waits:?}");
    }
    assert_failure(&mut bench, handle, Reason::Timeout);
}

#[test]
fn rfc7252_5_2_1_a_piggybacked_answer_ends_the_request() {
    let mut bench = Bench::new();
    let (handle, sent) = start(&mut bench, "x");
    assert_eq!(bench.feed(&Msg::answer(&sent, Code::CONTENT).payload(b"v")), []);
    assert_answer(&mut bench, handle, b"v");
    assert_eq!(bench.pass(secs(300)), []);
    assert_eq!(bench.stack.statistics().peers, 0);
}

#[test]
fn rfc7252_5_3_2_a_piggybacked_answer_needs_the_token_too() {
    let mut bench = Bench::new();
    let (_, sent) = start(&mut bench, "x");
    let wrong = Msg::new(Kind::Acknowledgement, Code::CONTENT, sent.mid, b"zz");
    assert_eq!(bench.feed(&wrong), []);
    assert_eq!(bench.events(), []);
    assert_eq!(bench.pass(secs(3)), [sent], "it is still retransmitted");
}

#[test]
fn rfc7252_5_2_2_a_separate_answer_is_acknowledged_and_its_duplicates_too() {
    let mut bench = Bench::new();
    let (handle, sent) = start(&mut bench, "x");
    bench.feed(&Msg::empty(Kind::Acknowledgement, sent.mid));
    assert_eq!(bench.pass(secs(60)), [], "acknowledged: nothing is retransmitted");
    let separate = Msg::con(Code::CONTENT, 900, sent.token.as_bytes()).payload(b"v");
    assert_eq!(bench.ask(&separate), Msg::empty(Kind::Acknowledgement, 900));
    assert_answer(&mut bench, handle, b"v");
    assert_eq!(
        bench.ask(&separate),
        Msg::empty(Kind::Acknowledgement, 900),
        "its ACK was lost"
    );
    assert_eq!(bench.events(), []);
}

#[test]
fn rfc7252_5_2_2_an_answer_before_its_acknowledgement_counts_as_both() {
    for confirmable in [true, false] {
        let mut bench = Bench::new();
        let (handle, sent) = start(&mut bench, "x");
        let kind = if confirmable {
            Kind::Confirmable
        } else {
            Kind::NonConfirmable
        };
        bench.feed(&Msg::new(kind, Code::CONTENT, 900, sent.token.as_bytes()).payload(b"v"));
        assert_answer(&mut bench, handle, b"v");
        assert_eq!(bench.feed(&Msg::empty(Kind::Acknowledgement, sent.mid)), []);
        assert_eq!(bench.pass(secs(100)), []);
    }
}

#[test]
fn an_answer_that_does_not_follow_its_acknowledgement_times_out() {
    let mut bench = Bench::new();
    let delivery = Delivery {
        confirmable: true,
        timeout: Some(secs(7)),
    };
    let handle = bench
        .stack
        .request(PEER, Request::new(Code::GET, &["x"]), delivery, bench.now)
        .expect("room");
    let sent = bench.one_sent();
    bench.feed(&Msg::empty(Kind::Acknowledgement, sent.mid));
    bench.pass(Duration::from_millis(6900));
    assert_eq!(bench.events(), []);
    bench.pass(Duration::from_millis(200));
    assert_failure(&mut bench, handle, Reason::Timeout);
    let late = Msg::con(Code::CONTENT, 900, sent.token.as_bytes());
    assert_eq!(
        bench.ask(&late),
        Msg::empty(Kind::Reset, 900),
        "nobody waits any more"
    );
}

#[test]
fn rfc7252_4_2_a_reset_is_the_end_of_a_request() {
    let mut bench = Bench::new();
    let (handle, sent) = start(&mut bench, "x");
    bench.feed(&Msg::empty(Kind::Reset, sent.mid));
    assert_failure(&mut bench, handle, Reason::Reset);
    assert_eq!(bench.pass(secs(100)), []);
}

#[test]
fn rfc7252_5_4_1_an_unknown_critical_option_in_an_answer_is_rejected() {
    let mut bench = Bench::new();
    let (handle, sent) = start(&mut bench, "x");
    let separate = Msg::con(Code::CONTENT, 900, sent.token.as_bytes()).option(9, b"?");
    assert_eq!(bench.ask(&separate), Msg::empty(Kind::Reset, 900));
    assert_failure(&mut bench, handle, Reason::Protocol);
    let (handle, sent) = start(&mut bench, "x");
    bench.feed(&Msg::answer(&sent, Code::CONTENT).option(9, b"?"));
    assert_failure(&mut bench, handle, Reason::Protocol);
}

#[test]
fn rfc7252_4_2_an_answer_to_nothing_is_reset() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.ask(&Msg::con(Code::CONTENT, 3, b"none")),
        Msg::empty(Kind::Reset, 3)
    );
    assert_eq!(
        bench.ask(&Msg::non(Code::CONTENT, 4, b"none")),
        Msg::empty(Kind::Reset, 4)
    );
    assert_eq!(
        bench.feed(&Msg::new(Kind::Acknowledgement, Code::CONTENT, 5, b"none")),
        []
    );
    assert_eq!(bench.feed(&Msg::empty(Kind::Acknowledgement, 6)), []);
    assert_eq!(bench.feed(&Msg::empty(Kind::Reset, 7)), []);
}

#[test]
fn the_code_2_00_of_real_devices_is_an_answer() {
    let mut bench = Bench::new();
    let (handle, sent) = start(&mut bench, "x");
    bench.feed(
        &Msg::answer(&sent, Code(64))
            .number(number::CONTENT_FORMAT, 65_535)
            .payload(b"v"),
    );
    assert_answer(&mut bench, handle, b"v");
}

#[test]
fn rfc7252_4_7_one_request_is_outstanding_at_a_time_and_the_queue_is_bounded() {
    let mut bench = Bench::with(Config {
        max_queued: 2,
        ..Config::default()
    });
    let (first, sent) = start(&mut bench, "one");
    for path in ["two", "three"] {
        let request = Request::new(Code::GET, &[path]);
        bench
            .stack
            .request(PEER, request, Delivery::default(), bench.now)
            .expect("room");
    }
    assert_eq!(bench.sent(), []);
    let more = bench.stack.request(
        PEER,
        Request::new(Code::GET, &["four"]),
        Delivery::default(),
        bench.now,
    );
    assert_eq!(more, Err(RequestError::QueueFull));
    let other = bench.stack.request(
        8,
        Request::new(Code::GET, &["one"]),
        Delivery::default(),
        bench.now,
    );
    assert!(
        other.is_ok() && bench.sent().len() == 1,
        "another peer has a queue of its own"
    );
    let two = bench.ask(&Msg::answer(&sent, Code::CONTENT).payload(b"1"));
    assert_eq!(two.options, [(number::URI_PATH, b"two".to_vec())]);
    assert_answer(&mut bench, first, b"1");
    // An acknowledgement alone ends the outstanding interaction too.
    let three = bench.ask(&Msg::empty(Kind::Acknowledgement, two.mid));
    assert_eq!(three.options, [(number::URI_PATH, b"three".to_vec())]);
    assert_ne!(two.token, three.token);
    assert_ne!(two.mid, three.mid);
}

#[test]
fn a_cancelled_request_leaves_the_queue_and_frees_its_place() {
    let mut bench = Bench::new();
    let (first, _) = start(&mut bench, "one");
    let queue = |bench: &mut Bench, path: &str| {
        bench
            .stack
            .request(
                PEER,
                Request::new(Code::GET, &[path]),
                Delivery::default(),
                bench.now,
            )
            .expect("room")
    };
    let (second, third) = (queue(&mut bench, "two"), queue(&mut bench, "three"));
    assert!(bench.stack.cancel(second, bench.now));
    assert_failure(&mut bench, second, Reason::Cancelled);
    assert!(bench.stack.cancel(first, bench.now));
    assert_eq!(bench.one_sent().options, [(number::URI_PATH, b"three".to_vec())]);
    assert_failure(&mut bench, first, Reason::Cancelled);
    assert!(!bench.stack.cancel(first, bench.now));
    assert!(bench.stack.cancel(third, bench.now));
}

#[test]
fn forgetting_a_peer_ends_all_that_concerns_it() {
    let mut bench = Bench::new();
    let (first, _) = start(&mut bench, "one");
    let second = bench.stack.request(
        PEER,
        Request::new(Code::GET, &["two"]),
        Delivery::default(),
        bench.now,
    );
    bench.feed(&get(1, b"t"));
    let (exchange, _) = bench.request();
    bench.stack.forget_peer(PEER, bench.now);
    let ended: Vec<_> = bench.events();
    assert_eq!(ended.len(), 2);
    for (event, expected) in ended.iter().zip([Ok(first), second]) {
        let Event::Failure {
            handle,
            reason: Reason::PeerGone,
            ..
        } = event
        else {
            panic!("{event:?}")
        };
        assert_eq!(Ok(*handle), expected);
    }
    assert!(bench.stack.respond(exchange, content(b""), bench.now).is_err());
    bench.pass(secs(260));
    let left = bench.stack.statistics();
    assert_eq!(
        (left.calls, left.exchanges, left.peers, left.timers),
        (0, 0, 0, 0)
    );
}

#[test]
fn a_non_confirmable_request_is_sent_once_and_stops_counting_after_a_while() {
    let mut bench = Bench::new();
    let delivery = Delivery {
        confirmable: false,
        timeout: Some(secs(20)),
    };
    let handle = bench
        .stack
        .request(PEER, Request::new(Code::GET, &["x"]), delivery, bench.now)
        .expect("room");
    assert_eq!(bench.one_sent().kind, Kind::NonConfirmable);
    bench
        .stack
        .request(PEER, Request::new(Code::GET, &["y"]), delivery, bench.now)
        .expect("room");
    let sent = bench.pass(secs(4));
    assert_eq!(sent.len(), 1, "the next one follows");
    bench.pass(secs(17));
    assert_failure(&mut bench, handle, Reason::Timeout);
}

#[test]
fn rfc7252_4_4_message_ids_are_not_used_again_within_exchange_lifetime() {
    let mut bench = Bench::new();
    let mut used = std::collections::HashSet::new();
    for _ in 0..2000 {
        let (_, sent) = start(&mut bench, "x");
        assert!(used.insert(sent.mid), "an id was used again");
        bench.feed(&Msg::answer(&sent, Code::CONTENT));
        bench.events();
        bench.pass(Duration::from_millis(50));
    }
}

#[test]
fn requests_that_do_not_fit_a_message_are_refused() {
    let mut bench = Bench::new();
    let long = "x".repeat(256);
    let invalid = [
        Request::new(Code::CONTENT, &["x"]),
        Request::new(Code::GET, &[&long]),
        Request {
            etags: vec![vec![0; 9]],
            ..Request::new(Code::GET, &["x"])
        },
    ];
    for request in invalid {
        let refused = bench.stack.request(PEER, request, Delivery::default(), bench.now);
        assert!(matches!(refused, Err(RequestError::Invalid(_))), "{refused:?}");
    }
}

#[test]
fn output_that_nobody_fetches_is_bounded() {
    let mut bench = Bench::with(Config {
        max_output: 1000,
        ..Config::default()
    });
    for mid in 0..1000 {
        bench.stack.receive_datagram(
            PEER,
            &Msg::empty(Kind::Confirmable, mid).bytes(),
            bench.now,
            &mut coap::PassAll,
        );
    }
    assert_eq!(bench.stack.transmits().count(), 250);
    assert_eq!(bench.stack.statistics().dropped, 750);
    bench.stack.sent(100);
    assert_eq!(
        Msg::parse(bench.stack.transmits().next().expect("150 left").datagram).mid,
        100
    );
    assert_eq!(bench.sent().len(), 150);
}
