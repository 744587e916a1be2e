//! Observe (RFC 7641), as the observing client and as the observed server.

mod common;

use coap::{Code, Delivery, Event, Exchange, Handle, Kind, Reason, Request, Response, number};
use common::{Bench, Msg, PEER, body, content, secs};

// --- as client ---

/// An accepted observation whose first sequence number is `sequence`: its handle and its token.
fn observing(bench: &mut Bench, sequence: u32) -> (Handle, Vec<u8>) {
    let request = Request {
        observe: Some(0),
        ..Request::new(Code::GET, &["5", "0", "3"])
    };
    let handle = bench
        .stack
        .request(PEER, request, Delivery::default(), bench.now)
        .expect("room");
    let sent = bench.one_sent();
    assert_eq!(sent.get(number::OBSERVE), Some(0));
    bench.feed(
        &Msg::answer(&sent, Code::CONTENT)
            .number(number::OBSERVE, sequence)
            .payload(b"first"),
    );
    let Event::Response { response, .. } = bench.one_event() else {
        panic!("no answer")
    };
    assert_eq!(
        (response.observe, &response.payload[..]),
        (Some(sequence), &b"first"[..])
    );
    (handle, sent.token.as_bytes().to_vec())
}

fn notification(kind: Kind, mid: u16, token: &[u8], sequence: u32, payload: &[u8]) -> Msg {
    Msg::new(kind, Code::CONTENT, mid, token)
        .number(number::OBSERVE, sequence)
        .payload(payload)
}

fn notified(bench: &mut Bench) -> Option<Vec<u8>> {
    let mut events = bench.events();
    assert!(events.len() <= 1, "{events:?}");
    match events.pop()? {
        Event::Notification { response, .. } => Some(response.payload),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rfc7641_3_5_confirmable_notifications_are_acknowledged_and_others_taken_silently() {
    let mut bench = Bench::new();
    let (_, token) = observing(&mut bench, 1);
    let con = notification(Kind::Confirmable, 50, &token, 2, b"a");
    assert_eq!(bench.ask(&con), Msg::empty(Kind::Acknowledgement, 50));
    assert_eq!(notified(&mut bench), Some(b"a".to_vec()));
    assert_eq!(
        bench.ask(&con),
        Msg::empty(Kind::Acknowledgement, 50),
        "its ACK was lost"
    );
    assert_eq!(notified(&mut bench), None);
    assert_eq!(
        bench.feed(&notification(Kind::NonConfirmable, 51, &token, 3, b"b")),
        []
    );
    assert_eq!(notified(&mut bench), Some(b"b".to_vec()));
}

#[test]
fn rfc7641_3_4_only_fresh_notifications_are_given_on() {
    let last = (1 << 24) - 1;
    let fresh = [(6, 9), (last, 0), (0, (1 << 23) - 1), (last - 5, 7)];
    let stale = [(9, 6), (9, 9), (0, last), (0, 1 << 23), (7, last - 5)];
    for (cases, expected) in [(&fresh[..], true), (&stale[..], false)] {
        for (old, new) in cases {
            let mut bench = Bench::new();
            let (_, token) = observing(&mut bench, *old);
            bench.feed(&notification(Kind::NonConfirmable, 51, &token, *new, b"n"));
            assert_eq!(notified(&mut bench).is_some(), expected, "{old} then {new}");
        }
    }
}

#[test]
fn rfc7641_3_4_after_128_seconds_any_notification_is_fresh() {
    let mut bench = Bench::new();
    let (_, token) = observing(&mut bench, 900);
    bench.pass(secs(128));
    bench.feed(&notification(Kind::NonConfirmable, 51, &token, 5, b"n"));
    assert_eq!(notified(&mut bench), None);
    bench.pass(secs(1));
    bench.feed(&notification(Kind::NonConfirmable, 52, &token, 5, b"n"));
    assert_eq!(notified(&mut bench), Some(b"n".to_vec()));
}

#[test]
fn rfc7641_3_2_an_error_ends_the_observation() {
    let mut bench = Bench::new();
    let (_, token) = observing(&mut bench, 1);
    bench.feed(&Msg::non(Code::NOT_FOUND, 60, &token));
    assert!(
        matches!(bench.one_event(), Event::Notification { response, .. } if response.code == Code::NOT_FOUND)
    );
    assert_eq!(
        bench.ask(&notification(Kind::NonConfirmable, 61, &token, 9, b"n")),
        Msg::empty(Kind::Reset, 61)
    );
    assert_eq!(bench.stack.statistics().calls, 0);
}

#[test]
fn rfc7641_4_1_an_answer_without_observe_is_a_plain_answer() {
    let mut bench = Bench::new();
    let request = Request {
        observe: Some(0),
        ..Request::new(Code::GET, &["x"])
    };
    bench
        .stack
        .request(PEER, request, Delivery::default(), bench.now)
        .expect("room");
    let sent = bench.one_sent();
    bench.feed(&Msg::answer(&sent, Code::CONTENT).payload(b"v"));
    assert!(matches!(bench.one_event(), Event::Response { response, .. } if response.observe.is_none()));
    assert_eq!(bench.stack.statistics().calls, 0);
}

#[test]
fn rfc7641_3_6_an_active_cancellation_asks_with_observe_1_and_the_same_token() {
    let mut bench = Bench::new();
    let (handle, token) = observing(&mut bench, 1);
    assert!(bench.stack.cancel(handle, bench.now));
    let Event::Failure {
        reason: Reason::Cancelled,
        ..
    } = bench.one_event()
    else {
        panic!("not cancelled")
    };
    let sent = bench.one_sent();
    assert_eq!(
        (sent.get(number::OBSERVE), sent.token.as_bytes()),
        (Some(1), &token[..])
    );
    let late = notification(Kind::Confirmable, 70, &token, 2, b"late");
    assert_eq!(bench.ask(&late), Msg::empty(Kind::Acknowledgement, 70));
    assert_eq!(
        bench.pass(secs(3)),
        std::slice::from_ref(&sent),
        "still retransmitted"
    );
    bench.feed(&Msg::answer(&sent, Code::CONTENT).payload(b"v"));
    assert_eq!(bench.events(), []);
    assert_eq!(bench.stack.statistics().calls, 0);
    assert_eq!(
        bench.ask(&notification(Kind::NonConfirmable, 71, &token, 3, b"n")),
        Msg::empty(Kind::Reset, 71)
    );
}

#[test]
fn rfc7641_3_6_a_forgotten_observation_is_reset_at_its_next_notification() {
    let mut bench = Bench::new();
    let (handle, token) = observing(&mut bench, 1);
    assert!(bench.stack.forget(handle, bench.now));
    assert_eq!(bench.sent(), []);
    assert!(matches!(
        bench.one_event(),
        Event::Failure {
            reason: Reason::Cancelled,
            ..
        }
    ));
    assert_eq!(
        bench.ask(&notification(Kind::Confirmable, 71, &token, 2, b"n")),
        Msg::empty(Kind::Reset, 71)
    );
}

#[test]
fn a_notification_that_overtakes_the_answer_to_another_request_is_taken() {
    let mut bench = Bench::new();
    let (_, token) = observing(&mut bench, 1);
    bench
        .stack
        .request(
            PEER,
            Request::new(Code::POST, &["5", "0", "2"]),
            Delivery::default(),
            bench.now,
        )
        .expect("room");
    let sent = bench.one_sent();
    bench.feed(&notification(Kind::NonConfirmable, 80, &token, 2, b"3"));
    assert_eq!(notified(&mut bench), Some(b"3".to_vec()));
    bench.feed(&Msg::answer(&sent, Code::CHANGED));
    assert!(matches!(bench.one_event(), Event::Response { response, .. } if response.code == Code::CHANGED));
}

#[test]
fn rfc7959_2_6_the_later_blocks_of_a_notification_are_fetched_under_another_token() {
    let mut bench = Bench::new();
    let (_, token) = observing(&mut bench, 1);
    let first = notification(Kind::NonConfirmable, 80, &token, 2, &body(100)[..64]);
    let sent = bench.ask(&first.block2(0, true, 64).option(number::ETAG, b"e"));
    assert_eq!(
        (sent.block(number::BLOCK2), sent.get(number::OBSERVE)),
        (Some((1, false, 64)), None)
    );
    assert_ne!(sent.token.as_bytes(), token);
    let rest = Msg::answer(&sent, Code::CONTENT)
        .block2(1, false, 64)
        .option(number::ETAG, b"e");
    bench.feed(&rest.payload(&body(100)[64..]));
    assert_eq!(notified(&mut bench), Some(body(100)));
}

#[test]
fn a_newer_notification_replaces_one_that_is_still_being_fetched() {
    let mut bench = Bench::new();
    let (_, token) = observing(&mut bench, 1);
    let first = notification(Kind::NonConfirmable, 80, &token, 2, &body(100)[..64]);
    let sent = bench.ask(&first.block2(0, true, 64));
    bench.feed(&notification(Kind::NonConfirmable, 81, &token, 3, b"newer"));
    assert_eq!(notified(&mut bench), Some(b"newer".to_vec()));
    bench.feed(
        &Msg::answer(&sent, Code::CONTENT)
            .block2(1, false, 64)
            .payload(&body(100)[64..]),
    );
    assert_eq!(notified(&mut bench), None);
}

#[test]
fn a_first_representation_in_blocks_is_the_answer_once_it_is_whole() {
    let mut bench = Bench::new();
    let request = Request {
        observe: Some(0),
        ..Request::new(Code::GET, &["big"])
    };
    let handle = bench
        .stack
        .request(PEER, request, Delivery::default(), bench.now)
        .expect("room");
    let sent = bench.one_sent();
    let first = Msg::answer(&sent, Code::CONTENT)
        .number(number::OBSERVE, 4)
        .block2(0, true, 64);
    let next = bench.ask(&first.payload(&body(100)[..64]));
    assert_eq!(bench.events(), []);
    bench.feed(
        &Msg::answer(&next, Code::CONTENT)
            .block2(1, false, 64)
            .payload(&body(100)[64..]),
    );
    let Event::Response {
        handle: found,
        response,
        ..
    } = bench.one_event()
    else {
        panic!("no answer")
    };
    assert_eq!(
        (found, response.observe, response.payload),
        (handle, Some(4), body(100))
    );
    bench.feed(&notification(
        Kind::NonConfirmable,
        81,
        sent.token.as_bytes(),
        5,
        b"n",
    ));
    assert_eq!(notified(&mut bench), Some(b"n".to_vec()));
}

#[test]
fn a_forgotten_peer_ends_its_observations() {
    let mut bench = Bench::new();
    let (handle, _) = observing(&mut bench, 1);
    bench.stack.forget_peer(PEER, bench.now);
    let Event::Failure {
        handle: found,
        reason,
        ..
    } = bench.one_event()
    else {
        panic!("no end")
    };
    assert_eq!((found, reason), (handle, Reason::PeerGone));
}

// --- as server ---

fn observe(mid: u16, token: &[u8], observe: u32) -> Msg {
    Msg::con(Code::GET, mid, token)
        .path(&["3"])
        .number(number::OBSERVE, observe)
}

/// An observation that we accepted, and the sequence number of its first representation.
fn observed(bench: &mut Bench, mid: u16) -> (Exchange, u32) {
    bench.feed(&observe(mid, b"o", 0));
    let Some(Event::Request {
        exchange, request, ..
    }) = bench.events().pop()
    else {
        panic!("no request")
    };
    assert_eq!(request.observe, Some(0));
    let answer = bench.respond(
        exchange,
        Response {
            observe: Some(0),
            ..content(b"v0")
        },
    );
    (exchange, answer.get(number::OBSERVE).expect("accepted"))
}

fn notify(bench: &mut Bench, exchange: Exchange, payload: &[u8], confirmable: bool) -> Vec<Msg> {
    bench
        .stack
        .notify(exchange, content(payload), confirmable, bench.now)
        .expect("observed");
    bench.sent()
}

#[test]
fn rfc7641_4_4_sequence_numbers_grow() {
    let mut bench = Bench::new();
    let (exchange, mut last) = observed(&mut bench, 1);
    for round in 0..50_u64 {
        let sent = notify(&mut bench, exchange, b"v", false);
        assert_eq!(
            (sent[0].kind, sent[0].token.as_bytes()),
            (Kind::NonConfirmable, &b"o"[..])
        );
        let sequence = sent[0].get(number::OBSERVE).expect("a notification");
        assert!(sequence > last);
        last = sequence;
        bench.pass(secs(round % 3));
    }
}

#[test]
fn an_application_that_does_not_accept_gives_a_plain_answer() {
    let mut bench = Bench::new();
    bench.feed(&observe(1, b"o", 0));
    let (exchange, _) = bench.request();
    assert_eq!(bench.respond(exchange, content(b"v")).get(number::OBSERVE), None);
    assert!(
        bench
            .stack
            .notify(exchange, content(b"v"), false, bench.now)
            .is_err()
    );
}

#[test]
fn rfc7641_3_6_a_reset_to_a_notification_ends_the_observation() {
    for confirmable in [true, false] {
        let mut bench = Bench::new();
        let (exchange, _) = observed(&mut bench, 1);
        let sent = notify(&mut bench, exchange, b"v1", confirmable);
        bench.feed(&Msg::empty(Kind::Reset, sent[0].mid));
        assert_eq!(bench.one_event(), Event::Cancelled { exchange, peer: PEER });
        assert!(
            bench
                .stack
                .notify(exchange, content(b"v2"), false, bench.now)
                .is_err()
        );
        assert_eq!(bench.stack.statistics().exchanges, 0);
    }
}

#[test]
fn rfc7641_4_1_observe_1_ends_the_observation_and_is_answered() {
    let mut bench = Bench::new();
    let (exchange, _) = observed(&mut bench, 1);
    bench.feed(&observe(2, b"o", 1));
    let events = bench.events();
    assert_eq!(events[0], Event::Cancelled { exchange, peer: PEER });
    let Event::Request {
        exchange, request, ..
    } = &events[1]
    else {
        panic!("no request")
    };
    assert_eq!(request.observe, Some(1));
    assert_eq!(bench.respond(*exchange, content(b"v")).get(number::OBSERVE), None);
}

#[test]
fn rfc7641_4_1_a_second_registration_under_the_same_token_replaces_the_first() {
    let mut bench = Bench::new();
    let (first, _) = observed(&mut bench, 1);
    let (second, _) = observed(&mut bench, 2);
    assert_eq!(
        bench.one_event(),
        Event::Cancelled {
            exchange: first,
            peer: PEER
        }
    );
    assert_eq!(notify(&mut bench, second, b"v", false).len(), 1);
    assert_eq!(bench.stack.statistics().exchanges, 1);
}

#[test]
fn rfc7641_4_5_a_confirmable_notification_without_acknowledgement_ends_the_observation() {
    let mut bench = Bench::new();
    let (exchange, _) = observed(&mut bench, 1);
    let sent = notify(&mut bench, exchange, b"v1", true);
    let again = bench.pass(secs(94));
    assert!(again.len() == 4 && again.iter().all(|again| *again == sent[0]));
    assert_eq!(bench.one_event(), Event::Cancelled { exchange, peer: PEER });
}

#[test]
fn rfc7641_4_5_2_while_one_is_under_way_only_the_newest_state_follows() {
    let mut bench = Bench::new();
    let (exchange, _) = observed(&mut bench, 1);
    let sent = notify(&mut bench, exchange, b"v1", true);
    assert_eq!(notify(&mut bench, exchange, b"v2", true), []);
    assert_eq!(notify(&mut bench, exchange, b"v3", true), []);
    let newest = bench.ask(&Msg::empty(Kind::Acknowledgement, sent[0].mid));
    assert_eq!(newest.payload, b"v3");
    assert_eq!(bench.feed(&Msg::empty(Kind::Acknowledgement, newest.mid)), []);
}

#[test]
fn rfc7641_4_5_2_a_retransmission_carries_the_newest_state() {
    let mut bench = Bench::new();
    let (exchange, _) = observed(&mut bench, 1);
    let sent = notify(&mut bench, exchange, b"v1", true);
    notify(&mut bench, exchange, b"v2", true);
    let again = bench.pass(secs(4));
    assert_eq!((again.len(), &again[0].payload[..]), (1, &b"v2"[..]));
    assert_ne!(again[0].mid, sent[0].mid);
    assert_eq!(bench.pass(secs(94)).len(), 3, "the back-off goes on");
    assert_eq!(bench.one_event(), Event::Cancelled { exchange, peer: PEER });
}

#[test]
fn rfc7641_4_5_one_notification_a_day_is_confirmable() {
    let mut bench = Bench::new();
    let (exchange, _) = observed(&mut bench, 1);
    assert_eq!(
        notify(&mut bench, exchange, b"v", false)[0].kind,
        Kind::NonConfirmable
    );
    bench.pass(secs(24 * 3600));
    let sent = notify(&mut bench, exchange, b"v", false);
    assert_eq!(sent[0].kind, Kind::Confirmable);
    bench.feed(&Msg::empty(Kind::Acknowledgement, sent[0].mid));
    assert_eq!(
        notify(&mut bench, exchange, b"v", false)[0].kind,
        Kind::NonConfirmable
    );
}

#[test]
fn rfc7641_4_2_an_error_notification_is_the_last() {
    let mut bench = Bench::new();
    let (exchange, _) = observed(&mut bench, 1);
    bench
        .stack
        .notify(exchange, Response::new(Code::NOT_FOUND), false, bench.now)
        .expect("observed");
    let sent = bench.one_sent();
    assert_eq!((sent.code, sent.get(number::OBSERVE)), (Code::NOT_FOUND, None));
    assert!(
        bench
            .stack
            .notify(exchange, content(b"v"), false, bench.now)
            .is_err()
    );
    assert_eq!((bench.events(), bench.stack.statistics().exchanges), (vec![], 0));
}

#[test]
fn rfc7959_2_6_a_large_notification_is_its_first_block_and_the_rest_is_kept() {
    let mut bench = Bench::new();
    let (exchange, _) = observed(&mut bench, 1);
    let sent = notify(&mut bench, exchange, &body(1500), false);
    assert_eq!(sent[0].block(number::BLOCK2), Some((0, true, 1024)));
    let rest = bench.ask(&Msg::con(Code::GET, 9, b"r").path(&["3"]).block2(1, false, 1024));
    assert_eq!(
        (rest.block(number::BLOCK2), &rest.payload[..]),
        (Some((1, false, 1024)), &body(1500)[1024..])
    );
    assert_eq!(rest.get(number::ETAG), sent[0].get(number::ETAG));
}

#[test]
fn a_released_observation_sends_and_reports_nothing() {
    let mut bench = Bench::new();
    let (exchange, _) = observed(&mut bench, 1);
    notify(&mut bench, exchange, b"v", true);
    bench.stack.release(exchange, bench.now);
    assert_eq!(bench.pass(secs(300)), []);
    assert_eq!(bench.events(), []);
    assert_eq!(bench.stack.statistics().exchanges, 0);
}
