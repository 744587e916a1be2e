//! Requests of peers and the message layer under them (RFC 7252), against one stack with a hand-made peer.

mod common;

use coap::{Code, Config, Event, Kind, Local, Message, Reply, Response, Verdict, number};
use common::{Bench, Msg, content, secs};

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
