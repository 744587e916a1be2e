//! The message layer and request/response rules of RFC 7252, each against one stack with a hand-made peer.

mod common;

use std::time::Duration;

use coap::{
    Code, Config, Delivery, Event, Kind, Local, Message, Reason, Reply, Request, RequestError, Response,
    Verdict, number,
};
use common::{Bench, Msg, PEER, content, secs};

fn get(mid: u16, token: &[u8]) -> Msg {
    Msg::con(Code::GET, mid, token).path(&["a", "b"])
}

/// Answers GET by itself: how often, and with which verdict.
struct Here(u32, Verdict);

impl Local<u8> for Here {
    fn request(&mut self, _: u8, _: &Message<'_>, reply: &mut Reply<'_>) -> Verdict {
        self.0 += 1;
        reply.code(Code::CONTENT);
        reply.payload(b"here");
        self.1
    }
}

// --- as server ---

#[test]
fn rfc7252_4_3_a_ping_is_answered_by_a_reset() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.ask(&Msg::empty(Kind::Confirmable, 9)),
        Msg::empty(Kind::Reset, 9)
    );
    assert_eq!(bench.feed(&Msg::empty(Kind::NonConfirmable, 9)), []);
}

#[test]
fn rfc7252_4_2_a_malformed_confirmable_is_reset_and_other_rubbish_ignored() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.feed_bytes(b"\x40\x01\x00\x05\xff"),
        [Msg::empty(Kind::Reset, 5)]
    );
    assert_eq!(bench.feed_bytes(b"\x50\x01\x00\x05\xff"), []);
    assert_eq!(bench.feed_bytes(b"\x00\x01\x00\x05"), []);
    assert_eq!(bench.feed_bytes(b""), []);
    assert_eq!(bench.stack.statistics().malformed, 4);
}

#[test]
fn rfc7252_4_2_codes_of_reserved_classes_are_reset_when_confirmable() {
    let mut bench = Bench::new();
    for class in [1, 6, 7] {
        assert_eq!(
            bench.ask(&Msg::con(Code(class << 5 | 1), 5, b"t")),
            Msg::empty(Kind::Reset, 5)
        );
        assert_eq!(bench.feed(&Msg::non(Code(class << 5 | 1), 5, b"t")), []);
    }
}

#[test]
fn rfc7252_5_2_1_a_quick_answer_is_piggybacked() {
    for token in [&b""[..], b"1", b"12345678"] {
        let mut bench = Bench::new();
        assert_eq!(
            bench.feed(
                &get(1, token)
                    .option(number::URI_QUERY, b"x=1")
                    .number(number::ACCEPT, 0)
            ),
            []
        );
        let (exchange, request) = bench.request();
        assert_eq!(
            (request.code, request.path, request.query),
            (Code::GET, vec!["a".into(), "b".into()], vec!["x=1".into()])
        );
        assert_eq!(request.accept, Some(0));
        let answer = bench.respond(exchange, content(b"hello"));
        assert_eq!(
            (answer.kind, answer.mid, answer.code),
            (Kind::Acknowledgement, 1, Code::CONTENT)
        );
        assert_eq!(
            (answer.token.as_bytes(), &answer.payload[..]),
            (token, &b"hello"[..])
        );
        assert!(
            bench
                .stack
                .respond(exchange, content(b"again"), bench.now)
                .is_err()
        );
    }
}

#[test]
fn rfc7252_5_2_2_a_slow_answer_is_acknowledged_first_and_sent_confirmable_until_acknowledged() {
    let mut bench = Bench::new();
    bench.feed(&get(1, b"tok"));
    let (exchange, _) = bench.request();
    assert_eq!(bench.pass(secs(1)), [Msg::empty(Kind::Acknowledgement, 1)]);
    assert_eq!(
        bench.ask(&get(1, b"tok")),
        Msg::empty(Kind::Acknowledgement, 1),
        "a duplicate meanwhile"
    );
    let answer = bench.respond(exchange, content(b"late"));
    assert_eq!(
        (answer.kind, answer.token.as_bytes()),
        (Kind::Confirmable, &b"tok"[..])
    );
    assert_eq!(
        bench.pass(secs(3)),
        std::slice::from_ref(&answer),
        "retransmitted"
    );
    assert_eq!(bench.feed(&Msg::empty(Kind::Acknowledgement, answer.mid)), []);
    assert_eq!(bench.pass(secs(100)), []);
    assert_eq!(bench.stack.statistics().exchanges, 0);
}

#[test]
fn rfc7252_4_2_a_separate_answer_is_given_up_after_max_retransmit_or_a_reset() {
    for reset in [false, true] {
        let mut bench = Bench::new();
        bench.feed(&get(1, b"tok"));
        let (exchange, _) = bench.request();
        bench.pass(secs(1));
        let answer = bench.respond(exchange, content(b"late"));
        if reset {
            bench.feed(&Msg::empty(Kind::Reset, answer.mid));
        }
        assert_eq!(bench.pass(secs(94)).len(), if reset { 0 } else { 4 });
        assert_eq!(bench.stack.statistics().exchanges, 0);
    }
}

#[test]
fn rfc7252_5_2_3_a_non_confirmable_request_gets_a_non_confirmable_answer() {
    let mut bench = Bench::new();
    bench.feed(&Msg::non(Code::GET, 1, b"t").path(&["x"]));
    let (exchange, _) = bench.request();
    assert_eq!(bench.pass(secs(5)), [], "nothing to acknowledge");
    assert_eq!(bench.respond(exchange, content(b"n")).kind, Kind::NonConfirmable);
    assert_eq!(
        bench.feed(&Msg::non(Code::GET, 1, b"t").path(&["x"])),
        [],
        "duplicates are ignored"
    );
    assert_eq!(bench.events(), []);
}

#[test]
fn rfc7252_4_5_a_duplicate_gets_the_same_answer_and_no_second_event() {
    let mut bench = Bench::new();
    let post = Msg::con(Code::POST, 77, b"t").path(&["rd"]).payload(b"</1/0>");
    bench.feed(&post);
    assert_eq!(bench.feed(&post), [], "while the application works on it");
    let (exchange, _) = bench.request();
    let response = Response {
        location_path: vec!["rd".into(), "5".into()],
        ..Response::new(Code::CREATED)
    };
    let answer = bench.respond(exchange, response);
    assert_eq!(bench.ask(&post), answer);
    bench.pass(secs(246));
    assert_eq!(bench.ask(&post), answer, "within EXCHANGE_LIFETIME");
    bench.pass(secs(2));
    assert_eq!(bench.feed(&post), []);
    assert!(
        matches!(bench.one_event(), Event::Request { .. }),
        "after EXCHANGE_LIFETIME it is a new request"
    );
}

#[test]
fn rfc7252_4_5_the_message_id_is_that_of_one_peer() {
    let mut bench = Bench::new();
    bench.feed(&get(5, b"t"));
    bench
        .stack
        .receive_datagram(8, &get(5, b"t").bytes(), bench.now, &mut coap::PassAll);
    assert_eq!(bench.events().len(), 2);
}

#[test]
fn a_message_id_used_again_for_other_bytes_is_a_new_message() {
    let mut bench = Bench::new();
    bench.feed(&get(5, b"before reboot"[..8].into()));
    bench.feed(&get(5, b"after"));
    assert_eq!(bench.events().len(), 2);
}

#[test]
fn deduplication_memory_is_bounded_and_forgets_the_oldest() {
    let mut bench = Bench::with(Config {
        max_seen: 10,
        ..Config::default()
    });
    for mid in 0..100 {
        bench.feed(&get(mid, b"t"));
    }
    assert_eq!(bench.stack.statistics().seen, 10);
    bench.events();
    bench.feed(&get(99, b"t"));
    assert_eq!(bench.events(), []);
    bench.feed(&get(0, b"t"));
    assert_eq!(bench.events().len(), 1);
}

#[test]
fn rfc7252_5_4_1_an_unknown_critical_option_is_refused_with_4_02() {
    let mut bench = Bench::new();
    let answer = bench.ask(&get(1, b"t").option(9, b"?"));
    assert_eq!(
        (answer.kind, answer.code, answer.token.as_bytes()),
        (Kind::Acknowledgement, Code::BAD_OPTION, &b"t"[..])
    );
    assert_eq!(bench.feed(&Msg::non(Code::GET, 2, b"t").option(9, b"?")), []);
    assert_eq!(bench.events(), []);
    bench.feed(&get(3, b"t").option(10, b"?"));
    assert!(
        matches!(bench.one_event(), Event::Request { .. }),
        "an elective one is ignored"
    );
}

#[test]
fn rfc7252_5_8_an_unknown_method_is_refused_with_4_05() {
    assert_eq!(
        Bench::new().ask(&Msg::con(Code(8), 1, b"t")).code,
        Code::METHOD_NOT_ALLOWED
    );
}

#[test]
fn rfc7252_5_7_2_a_proxy_request_is_refused_with_5_05() {
    let mut bench = Bench::new();
    let proxied = get(1, b"t").option(number::PROXY_URI, b"coap://x/");
    assert_eq!(bench.ask(&proxied).code, Code::PROXYING_NOT_SUPPORTED);
}

#[test]
fn rfc8132_fetch_patch_and_ipatch_and_preconditions_pass_through() {
    let mut bench = Bench::new();
    for (mid, code) in [(1, Code::FETCH), (2, Code::PATCH), (3, Code::IPATCH)] {
        let msg = Msg::con(code, mid, b"t")
            .path(&["x"])
            .number(number::CONTENT_FORMAT, 112)
            .payload(b"p");
        bench.feed(
            &msg.option(number::IF_MATCH, b"e")
                .option(number::IF_NONE_MATCH, b"")
                .option(number::URI_HOST, b"h"),
        );
        let (_, request) = bench.request();
        assert_eq!(
            (request.code, &request.payload[..], request.content_format),
            (code, &b"p"[..], Some(112))
        );
        assert_eq!(
            (request.if_match, request.if_none_match),
            (vec![b"e".to_vec()], true)
        );
        assert_eq!(request.host.as_deref(), Some("h"));
    }
}

#[test]
fn a_local_answer_leaves_no_state() {
    let mut bench = Bench::new();
    let mut local = Here(0, Verdict::Answered);
    for _ in 0..2 {
        let sent = bench.feed_with(&get(1, b"t").bytes(), &mut local);
        assert_eq!(
            (sent[0].kind, sent[0].mid, &sent[0].payload[..]),
            (Kind::Acknowledgement, 1, &b"here"[..])
        );
    }
    assert_eq!(
        (
            local.0,
            bench.stack.statistics().seen,
            bench.stack.statistics().peers
        ),
        (2, 0, 0)
    );
    assert_eq!(bench.stack.next_timeout(), None);
}

#[test]
fn a_local_answer_that_is_not_idempotent_is_replayed() {
    let mut bench = Bench::new();
    let mut local = Here(0, Verdict::AnsweredOnce);
    let first = bench.feed_with(&get(1, b"t").bytes(), &mut local);
    assert_eq!(bench.feed_with(&get(1, b"t").bytes(), &mut local), first);
    assert_eq!(local.0, 1);
}

#[test]
fn a_local_answer_with_options_out_of_order_becomes_5_00() {
    struct Wrong;
    impl Local<u8> for Wrong {
        fn request(&mut self, _: u8, _: &Message<'_>, reply: &mut Reply<'_>) -> Verdict {
            reply.uint(number::MAX_AGE, 1);
            reply.option(number::ETAG, b"e");
            Verdict::Answered
        }
    }
    let sent = Bench::new().feed_with(&get(1, b"t").bytes(), &mut Wrong);
    assert_eq!(
        (sent[0].code, &sent[0].options[..]),
        (Code::INTERNAL_SERVER_ERROR, &[][..])
    );
}

#[test]
fn too_many_waiting_requests_are_refused_with_5_03_and_max_age() {
    let mut bench = Bench::with(Config {
        max_events: 2,
        busy_max_age: 9,
        ..Config::default()
    });
    bench.feed(&get(1, b"t"));
    bench.feed(&get(2, b"t"));
    let refused = bench.ask(&get(3, b"t"));
    assert_eq!(
        (refused.code, refused.get(number::MAX_AGE)),
        (Code::SERVICE_UNAVAILABLE, Some(9))
    );
    bench.events();
    assert_eq!(
        bench.feed(&get(3, b"t")),
        [],
        "a repetition is taken when there is room again"
    );
    assert_eq!(bench.events().len(), 1);
}

#[test]
fn a_request_that_the_application_never_answers_is_forgotten() {
    let mut bench = Bench::new();
    bench.feed(&get(1, b"t"));
    let (exchange, _) = bench.request();
    bench.pass(secs(260));
    assert!(bench.stack.respond(exchange, content(b""), bench.now).is_err());
    let left = bench.stack.statistics();
    assert_eq!((left.exchanges, left.seen, left.peers, left.timers), (0, 0, 0, 0));
}

// --- as client ---

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
