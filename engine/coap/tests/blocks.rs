//! Block-wise transfer as server (RFC 7959): bodies assembled, answers cut, blobs served.

mod common;

use coap::{
    Blob, Block, Code, Config, Event, Kind, Local, Message, Reply, Response, Served, Verdict, number,
};
use common::{Bench, Msg, PEER, body, content, secs};

fn put(mid: u16, token: &[u8], num: u32, more: bool, payload: &[u8]) -> Msg {
    Msg::con(Code::PUT, mid, token)
        .path(&["f"])
        .block1(num, more, 64)
        .payload(payload)
}

fn get(mid: u16, num: u32, size: u16) -> Msg {
    Msg::con(Code::GET, mid, b"t")
        .path(&["big"])
        .block2(num, false, size)
}

#[test]
fn rfc7959_2_5_blocks_are_assembled_though_the_token_changes() {
    let mut bench = Bench::new();
    let whole = body(150);
    let post = |mid, num, more, payload: &[u8]| {
        let token = [u8::try_from(mid).expect("small")];
        let msg = Msg::con(Code::POST, mid, &token)
            .path(&["rd"])
            .option(number::URI_QUERY, b"ep=x");
        msg.block1(num, more, 64)
            .number(number::CONTENT_FORMAT, 40)
            .payload(payload)
    };
    for (mid, num) in [(1, 0), (2, 1)] {
        let at = num as usize * 64;
        let answer = bench.ask(&post(mid, num, true, &whole[at..at + 64]));
        assert_eq!(
            (answer.code, answer.block(number::BLOCK1)),
            (Code::CONTINUE, Some((num, true, 64)))
        );
    }
    assert_eq!(bench.feed(&post(3, 2, false, &whole[128..])), []);
    let (exchange, request) = bench.request();
    assert_eq!((request.payload, request.content_format), (whole, Some(40)));
    assert_eq!(request.query, ["ep=x"]);
    let answer = bench.respond(exchange, Response::new(Code::CREATED));
    assert_eq!((answer.code, answer.token.as_bytes()), (Code::CREATED, &[3][..]));
    assert_eq!(answer.block(number::BLOCK1), Some((2, false, 64)));
}

#[test]
fn rfc7959_2_5_operations_differ_by_peer_and_query() {
    let mut bench = Bench::new();
    bench.feed(&put(1, b"t", 0, true, &[1; 64]));
    let other = put(2, b"t", 1, false, &[2; 5]).option(number::URI_QUERY, b"x");
    assert_eq!(bench.ask(&other).code, Code::REQUEST_ENTITY_INCOMPLETE);
    bench.stack.receive_datagram(
        8,
        &put(3, b"t", 1, false, &[2; 5]).bytes(),
        bench.now,
        &mut coap::PassAll,
    );
    assert_eq!(bench.one_sent().code, Code::REQUEST_ENTITY_INCOMPLETE);
    assert_eq!(bench.events(), []);
}

#[test]
fn rfc7959_2_9_2_a_gap_is_answered_4_08_and_block_0_starts_again() {
    let mut bench = Bench::new();
    bench.feed(&put(1, b"t", 0, true, &[1; 64]));
    assert_eq!(
        bench.ask(&put(2, b"t", 2, true, &[3; 64])).code,
        Code::REQUEST_ENTITY_INCOMPLETE
    );
    assert_eq!(bench.ask(&put(3, b"t", 0, true, &[9; 64])).code, Code::CONTINUE);
    bench.feed(&put(4, b"t", 1, false, &[8; 3]));
    assert_eq!(bench.request().1.payload, [vec![9; 64], vec![8; 3]].concat());
}

#[test]
fn rfc7959_2_5_a_repeated_block_is_answered_the_same_and_a_late_duplicate_restarts_nothing() {
    let mut bench = Bench::new();
    let first = put(1, b"t", 0, true, &[1; 64]);
    let answer = bench.ask(&first);
    bench.feed(&put(2, b"t", 1, true, &[2; 64]));
    assert_eq!(
        bench.ask(&put(3, b"t", 1, true, &[2; 64])).code,
        Code::CONTINUE,
        "a new Message ID"
    );
    assert_eq!(
        bench.ask(&first),
        answer,
        "the datagram of block 0 comes once more"
    );
    bench.feed(&put(4, b"t", 2, false, &[3; 2]));
    assert_eq!(bench.request().1.payload.len(), 130);
}

#[test]
fn rfc7959_2_5_the_last_block_again_gets_the_answer_and_no_second_event() {
    let mut bench = Bench::new();
    bench.feed(&put(1, b"a", 0, true, &[1; 64]));
    bench.feed(&put(2, b"b", 1, false, &[2; 7]));
    let (exchange, _) = bench.request();
    assert_eq!(
        bench.feed(&put(3, b"c", 1, false, &[2; 7])),
        [],
        "the application still works on it"
    );
    let answer = bench.respond(exchange, content(b"done"));
    assert_eq!((answer.mid, answer.token.as_bytes()), (3, &b"c"[..]));
    let again = bench.ask(&put(4, b"d", 1, false, &[2; 7]));
    assert_eq!(
        (again.mid, again.token.as_bytes(), again.code),
        (4, &b"d"[..], Code::CONTENT)
    );
    assert_eq!(
        (&again.payload, &again.options),
        (&answer.payload, &answer.options)
    );
    assert_eq!(bench.events(), []);
}

#[test]
fn rfc7959_2_9_3_a_body_above_the_bound_is_answered_4_13_with_size1() {
    let mut bench = Bench::with(Config {
        max_body: 100,
        ..Config::default()
    });
    let announced = put(1, b"t", 0, true, &[1; 64]).number(number::SIZE1, 101);
    let answer = bench.ask(&announced);
    assert_eq!(
        (answer.code, answer.get(number::SIZE1)),
        (Code::REQUEST_ENTITY_TOO_LARGE, Some(100))
    );
    bench.feed(&put(2, b"t", 0, true, &[1; 64]));
    assert_eq!(
        bench.ask(&put(3, b"t", 1, true, &[1; 64])).code,
        Code::REQUEST_ENTITY_TOO_LARGE
    );
    assert_eq!(bench.stack.statistics().assemblies, 0);
}

#[test]
fn rfc7959_2_5_a_smaller_size_is_proposed_when_we_prefer_one() {
    let mut bench = Bench::with(Config {
        block_size: 32,
        ..Config::default()
    });
    let answer = bench.ask(&put(1, b"t", 0, true, &[1; 64]));
    assert_eq!(
        (answer.code, answer.block(number::BLOCK1)),
        (Code::CONTINUE, Some((0, true, 32)))
    );
    let next = Msg::con(Code::PUT, 2, b"t")
        .path(&["f"])
        .block1(2, false, 32)
        .payload(&[2; 3]);
    bench.feed(&next);
    assert_eq!(bench.request().1.payload.len(), 67);
}

#[test]
fn rfc7959_2_2_the_reserved_size_and_short_blocks_are_bad_requests() {
    let mut bench = Bench::new();
    let reserved = Msg::con(Code::PUT, 1, b"t")
        .path(&["f"])
        .number(number::BLOCK1, 7)
        .payload(b"x");
    assert_eq!(bench.ask(&reserved).code, Code::BAD_REQUEST);
    assert_eq!(
        bench.ask(&put(2, b"t", 0, true, &[1; 63])).code,
        Code::BAD_REQUEST
    );
}

#[test]
fn assemblies_are_bounded_in_number_and_expire() {
    let mut bench = Bench::with(Config {
        max_assemblies: 3,
        ..Config::default()
    });
    let open = |bench: &mut Bench, mid: u16| {
        let path = mid.to_string();
        bench
            .ask(
                &Msg::con(Code::PUT, mid, b"t")
                    .path(&[&path])
                    .block1(0, true, 16)
                    .payload(&[1; 16]),
            )
            .code
    };
    for mid in 0..3 {
        assert_eq!(open(&mut bench, mid), Code::CONTINUE);
    }
    assert_eq!(open(&mut bench, 3), Code::SERVICE_UNAVAILABLE);
    bench.pass(secs(11));
    assert_eq!(open(&mut bench, 4), Code::CONTINUE, "in the place of an idle one");
    bench.pass(secs(260));
    assert_eq!(bench.stack.statistics().assemblies, 0);
}

#[test]
fn a_streamed_path_hands_on_each_block_and_its_answer_carries_the_block() {
    struct Streamed;
    impl Local<u8> for Streamed {
        fn request(&mut self, _: u8, _: &Message<'_>, _: &mut Reply<'_>) -> Verdict {
            Verdict::PassStreamed
        }
    }
    let mut bench = Bench::new();
    for (num, more, code) in [(5, true, Code::CONTINUE), (6, false, Code::CHANGED)] {
        let mid = u16::try_from(num).expect("small");
        let msg = put(mid, b"t", num, more, &[1; 64]).number(number::SIZE1, 448);
        assert_eq!(bench.feed_with(&msg.bytes(), &mut Streamed), []);
        let (exchange, request) = bench.request();
        let block = Some(Block::new(num, more, 64));
        assert_eq!(
            (request.block1, request.size1, request.payload.len()),
            (block, Some(448), 64)
        );
        let answer = bench.respond(
            exchange,
            Response {
                block1: block,
                ..Response::new(code)
            },
        );
        assert_eq!(
            (answer.code, answer.block(number::BLOCK1)),
            (code, Some((num, more, 64)))
        );
        assert_eq!(
            bench.feed_with(&msg.bytes(), &mut Streamed),
            [answer],
            "a duplicate"
        );
    }
}

/// A bench that has answered block 0 of a large representation.
fn served(len: usize, config: Config) -> (Bench, Msg) {
    let mut bench = Bench::with(config);
    bench.feed(&Msg::con(Code::GET, 1, b"t").path(&["big"]));
    let (exchange, _) = bench.request();
    let response = Response {
        content_format: Some(11_543),
        ..content(&body(len))
    };
    let first = bench.respond(exchange, response);
    (bench, first)
}

#[test]
fn rfc7959_2_4_a_large_answer_is_cut_and_later_blocks_come_without_the_application() {
    let (mut bench, first) = served(2500, Config::default());
    assert_eq!(
        (first.block(number::BLOCK2), first.get(number::SIZE2)),
        (Some((0, true, 1024)), Some(2500))
    );
    let etag = first.get(number::ETAG);
    assert!(etag.is_some());
    let mut whole = first.payload;
    for num in 1..3 {
        let block = bench.ask(&get(u16::try_from(num + 1).expect("small"), num, 1024));
        assert_eq!(block.block(number::BLOCK2), Some((num, num == 1, 1024)));
        assert_eq!(
            (block.get(number::ETAG), block.get(number::CONTENT_FORMAT)),
            (etag, Some(11_543))
        );
        whole.extend(block.payload);
    }
    assert_eq!(whole, body(2500));
    assert_eq!(bench.events(), []);
}

#[test]
fn rfc7959_2_4_a_smaller_size_in_mid_transfer_is_honoured_and_a_larger_one_is_not() {
    let (mut bench, _) = served(
        2500,
        Config {
            block_size: 256,
            ..Config::default()
        },
    );
    let small = bench.ask(&get(2, 5, 64));
    assert_eq!(
        (small.block(number::BLOCK2), &small.payload[..]),
        (Some((5, true, 64)), &body(2500)[320..384])
    );
    let large = bench.ask(&get(3, 1, 1024));
    assert_eq!(
        (large.block(number::BLOCK2), &large.payload[..]),
        (Some((4, true, 256)), &body(2500)[1024..1280])
    );
}

#[test]
fn rfc7959_2_4_a_block_past_the_end_is_an_error() {
    let (mut bench, _) = served(2048, Config::default());
    for num in [2, 3, (1 << 20) - 1] {
        let mid = u16::try_from(num % 60_000).expect("small");
        assert_eq!(bench.ask(&get(mid, num, 1024)).code, Code::BAD_REQUEST);
    }
}

#[test]
fn rfc7959_4_size2_is_given_when_asked_for() {
    let (mut bench, _) = served(2048, Config::default());
    assert_eq!(bench.ask(&get(2, 1, 1024)).get(number::SIZE2), None);
    assert_eq!(
        bench
            .ask(&get(3, 1, 1024).number(number::SIZE2, 0))
            .get(number::SIZE2),
        Some(2048)
    );
}

#[test]
fn a_later_block_of_nothing_kept_asks_the_application_and_is_cut_there() {
    let mut bench = Bench::new();
    bench.feed(&get(1, 2, 64));
    let (exchange, _) = bench.request();
    let answer = bench.respond(exchange, content(&body(300)));
    assert_eq!(
        (answer.block(number::BLOCK2), &answer.payload[..]),
        (Some((2, true, 64)), &body(300)[128..192])
    );
    bench.feed(&Msg::con(Code::GET, 2, b"t").path(&["other"]).block2(9, false, 64));
    let (exchange, _) = bench.request();
    assert_eq!(
        bench.respond(exchange, content(&body(300))).code,
        Code::BAD_REQUEST
    );
}

#[test]
fn rfc7959_2_4_a_later_block_of_a_post_is_never_carried_out_again() {
    let mut bench = Bench::new();
    let later = Msg::con(Code::POST, 1, b"t").path(&["x"]).block2(1, false, 64);
    assert_eq!(bench.ask(&later).code, Code::REQUEST_ENTITY_INCOMPLETE);
    assert_eq!(bench.events(), []);
}

#[test]
fn kept_answers_are_bounded_and_expire() {
    let mut bench = Bench::with(Config {
        max_answers: 2,
        ..Config::default()
    });
    for mid in 0..5 {
        bench.feed(&Msg::con(Code::GET, mid, b"t").path(&[&mid.to_string()]));
        let (exchange, _) = bench.request();
        bench.respond(exchange, content(&body(2000)));
    }
    assert_eq!(bench.stack.statistics().answers, 2);
    bench.pass(secs(260));
    assert_eq!(bench.stack.statistics().answers, 0);
}

#[test]
fn an_error_answer_is_never_cut() {
    let mut bench = Bench::new();
    bench.feed(&get(1, 3, 64));
    let (exchange, _) = bench.request();
    let answer = bench.respond(
        exchange,
        Response {
            payload: body(500),
            ..Response::new(Code::NOT_FOUND)
        },
    );
    assert_eq!(
        (answer.code, answer.block(number::BLOCK2), answer.payload.len()),
        (Code::NOT_FOUND, None, 64)
    );
}

fn blob(request: &Msg, max_size: u16) -> (Served, Msg) {
    let (bytes, datagram) = (body(3000), request.bytes());
    let message = Message::parse(&datagram).expect("well-formed");
    let mut buf = Vec::new();
    let mut reply = Reply::new(&mut buf, Kind::Acknowledgement, message.mid, message.token);
    let blob = Blob {
        bytes: &bytes,
        etag: b"digest",
        content_format: Some(42),
    };
    let served = blob.serve(&message, max_size, &mut reply);
    (served, Msg::parse(&buf))
}

#[test]
fn a_blob_is_served_block_by_block_under_one_etag() {
    let mut whole = Vec::new();
    for num in 0..3 {
        let (served, block) = blob(&get(1, num, 1024), 1024);
        assert_eq!(
            served,
            Served::Block {
                offset: whole.len(),
                end: whole.len() + block.payload.len()
            }
        );
        assert_eq!(
            (block.block(number::BLOCK2), block.code),
            (Some((num, num < 2, 1024)), Code::CONTENT)
        );
        assert!(block.options.contains(&(number::ETAG, b"digest".to_vec())));
        whole.extend(block.payload);
    }
    assert_eq!(whole, body(3000));
}

#[test]
fn a_blob_without_block2_begins_with_a_first_block_and_the_size() {
    let (_, first) = blob(&Msg::con(Code::GET, 1, b"t"), 512);
    assert_eq!(
        (first.block(number::BLOCK2), first.get(number::SIZE2)),
        (Some((0, true, 512)), Some(3000))
    );
}

#[test]
fn a_blob_past_its_end_or_of_reserved_size_is_refused() {
    assert_eq!(blob(&get(1, 3, 1024), 1024).1.code, Code::BAD_REQUEST);
    let reserved = Msg::con(Code::GET, 1, b"t").number(number::BLOCK2, 7);
    assert_eq!(blob(&reserved, 1024).0, Served::Refused);
}

#[test]
fn a_blob_in_smaller_blocks_than_asked_starts_at_the_same_byte() {
    let (served, block) = blob(&get(1, 1, 1024), 256);
    assert_eq!(
        (served, block.block(number::BLOCK2)),
        (
            Served::Block {
                offset: 1024,
                end: 1280
            },
            Some((4, true, 256))
        )
    );
    let (served, block) = blob(&get(1, 3, 64), 1024);
    assert_eq!(
        (served, block.block(number::BLOCK2)),
        (
            Served::Block {
                offset: 192,
                end: 256
            },
            Some((3, true, 64))
        )
    );
}

#[test]
fn rfc7252_5_10_6_2_a_blob_that_the_client_holds_is_valid() {
    let held = Msg::con(Code::GET, 1, b"t")
        .option(number::ETAG, b"old")
        .option(number::ETAG, b"digest");
    let (served, answer) = blob(&held, 1024);
    assert_eq!(
        (served, answer.code, answer.payload.len()),
        (Served::Valid, Code::VALID, 0)
    );
}

#[test]
fn a_blob_served_locally_keeps_no_state_of_the_peer() {
    struct Site(Vec<u8>);
    impl Local<u8> for Site {
        fn request(&mut self, _: u8, request: &Message<'_>, reply: &mut Reply<'_>) -> Verdict {
            Blob {
                bytes: &self.0,
                etag: b"e",
                content_format: None,
            }
            .serve(request, 1024, reply);
            Verdict::Answered
        }
    }
    let mut bench = Bench::new();
    let mut site = Site(body(100_000));
    let mut whole = Vec::new();
    for num in 0..98 {
        let sent = bench.feed_with(&get(1, num, 1024).bytes(), &mut site);
        whole.extend_from_slice(&sent[0].payload);
    }
    assert_eq!(whole, site.0);
    assert_eq!(bench.stack.next_timeout(), None);
    assert_eq!(bench.stack.statistics().local, 98);
}

#[test]
fn forgetting_a_peer_lets_its_half_body_expire() {
    let mut bench = Bench::new();
    bench.feed(&put(1, b"t", 0, true, &[1; 64]));
    bench.stack.forget_peer(PEER, bench.now);
    bench.pass(secs(260));
    assert_eq!(bench.stack.statistics().assemblies, 0);
    assert!(
        !bench
            .events()
            .iter()
            .any(|event| matches!(event, Event::Request { .. }))
    );
}
