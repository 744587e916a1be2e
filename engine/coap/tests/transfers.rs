//! Block-wise transfer as client (RFC 7959): large requests and large answers.

mod common;

use coap::{Block, Code, Config, Delivery, Event, Handle, Reason, Request, Response, number};
use common::{Bench, Msg, PEER, body, secs};

fn start(bench: &mut Bench, request: Request) -> (Handle, Msg) {
    let handle = bench
        .stack
        .request(PEER, request, Delivery::default(), bench.now)
        .expect("room");
    (handle, bench.one_sent())
}

fn upload(bench: &mut Bench, len: usize) -> (Handle, Msg) {
    start(
        bench,
        Request {
            payload: body(len),
            content_format: Some(42),
            ..Request::new(Code::PUT, &["f"])
        },
    )
}

fn answer(bench: &mut Bench, expected: Handle) -> Response {
    let events = bench.events();
    match events.last() {
        Some(Event::Response { handle, response, .. }) if *handle == expected => response.clone(),
        other => panic!("{other:?}"),
    }
}

fn failure(bench: &mut Bench, expected: Handle) -> Reason {
    let events = bench.events();
    match events.last() {
        Some(Event::Failure { handle, reason, .. }) if *handle == expected => *reason,
        other => panic!("{other:?}"),
    }
}

/// 2.31 for a block.
fn go_on(sent: &Msg) -> Msg {
    let (num, more, size) = sent.block(number::BLOCK1).expect("a Block1");
    Msg::answer(sent, Code::CONTINUE).block1(num, more, u16::try_from(size).expect("small"))
}

// --- large requests ---

#[test]
fn rfc7959_2_5_a_large_request_goes_in_blocks_each_with_its_own_token() {
    let mut bench = Bench::new();
    let (handle, mut sent) = upload(&mut bench, 2500);
    assert_eq!(
        (sent.block(number::BLOCK1), sent.get(number::SIZE1)),
        (Some((0, true, 1024)), Some(2500))
    );
    let mut whole = sent.payload.clone();
    for num in 1..3 {
        let next = bench.ask(&go_on(&sent));
        assert_ne!(next.token, sent.token);
        assert_eq!(
            (next.block(number::BLOCK1), next.get(number::SIZE1)),
            (Some((num, num < 2, 1024)), None)
        );
        assert_eq!(next.get(number::CONTENT_FORMAT), Some(42));
        whole.extend_from_slice(&next.payload);
        sent = next;
    }
    assert_eq!(whole, body(2500));
    bench.feed(&Msg::answer(&sent, Code::CHANGED).block1(2, false, 1024));
    assert_eq!(answer(&mut bench, handle).code, Code::CHANGED);
}

#[test]
fn rfc7959_2_5_a_smaller_size_goes_on_at_the_same_byte() {
    let mut bench = Bench::new();
    let (_, sent) = upload(&mut bench, 2500);
    let next = bench.ask(&Msg::answer(&sent, Code::CONTINUE).block1(0, true, 128));
    assert_eq!(
        (next.block(number::BLOCK1), &next.payload[..]),
        (Some((8, true, 128)), &body(2500)[1024..1152])
    );
    let next = bench.ask(&Msg::answer(&next, Code::CONTINUE).block1(8, true, 1024));
    assert_eq!(
        next.block(number::BLOCK1),
        Some((9, true, 128)),
        "never grows again"
    );
}

#[test]
fn rfc7959_2_9_3_4_13_with_a_smaller_size_repeats_the_block_at_that_size() {
    let mut bench = Bench::new();
    let (_, sent) = upload(&mut bench, 2500);
    let next = bench.ask(&Msg::answer(&sent, Code::REQUEST_ENTITY_TOO_LARGE).block1(0, true, 256));
    assert_eq!(
        (next.block(number::BLOCK1), &next.payload[..]),
        (Some((0, true, 256)), &body(2500)[..256])
    );
}

#[test]
fn rfc7959_2_9_3_4_13_without_a_size_is_the_answer_at_block_0_and_too_large_later() {
    let mut bench = Bench::new();
    let (handle, sent) = upload(&mut bench, 2500);
    bench.feed(&Msg::answer(&sent, Code::REQUEST_ENTITY_TOO_LARGE));
    assert_eq!(answer(&mut bench, handle).code, Code::REQUEST_ENTITY_TOO_LARGE);
    let (handle, sent) = upload(&mut bench, 2500);
    let next = bench.ask(&go_on(&sent));
    bench.feed(&Msg::answer(&next, Code::REQUEST_ENTITY_TOO_LARGE));
    assert_eq!(failure(&mut bench, handle), Reason::TooLarge);
}

#[test]
fn rfc7959_2_9_2_4_08_starts_again_at_0_a_few_times() {
    let mut bench = Bench::new();
    let (handle, mut sent) = upload(&mut bench, 2500);
    for _ in 0..3 {
        let next = bench.ask(&go_on(&sent));
        sent = bench.ask(&Msg::answer(&next, Code::REQUEST_ENTITY_INCOMPLETE).payload(b"text"));
        assert_eq!(sent.block(number::BLOCK1), Some((0, true, 1024)));
    }
    let next = bench.ask(&go_on(&sent));
    assert_eq!(
        bench.feed(&Msg::answer(&next, Code::REQUEST_ENTITY_INCOMPLETE)),
        []
    );
    assert_eq!(answer(&mut bench, handle).code, Code::REQUEST_ENTITY_INCOMPLETE);
}

#[test]
fn rfc7252_5_9_3_4_5_03_in_mid_transfer_is_waited_out() {
    let mut bench = Bench::new();
    let (_, sent) = upload(&mut bench, 2500);
    let next = bench.ask(&go_on(&sent));
    assert_eq!(
        bench.feed(&Msg::answer(&next, Code::SERVICE_UNAVAILABLE).number(number::MAX_AGE, 20)),
        []
    );
    assert_eq!(bench.pass(secs(19)), []);
    let again = bench.pass(secs(2));
    assert_eq!(
        (again[0].block(number::BLOCK1), &again[0].payload),
        (Some((1, true, 1024)), &next.payload)
    );
}

#[test]
fn other_requests_wait_until_a_transfer_is_complete() {
    let mut bench = Bench::new();
    let (_, sent) = upload(&mut bench, 2000);
    bench
        .stack
        .request(
            PEER,
            Request::new(Code::GET, &["x"]),
            Delivery::default(),
            bench.now,
        )
        .expect("room");
    let last = bench.ask(&go_on(&sent));
    assert_eq!(last.block(number::BLOCK1), Some((1, false, 1024)));
    assert_eq!(bench.ask(&Msg::answer(&last, Code::CHANGED)).code, Code::GET);
}

// --- large answers ---

fn first_block(sent: &Msg, len: usize, etag: &[u8]) -> Msg {
    let answer = Msg::answer(sent, Code::CONTENT)
        .block2(0, true, 64)
        .option(number::ETAG, etag);
    answer
        .number(number::CONTENT_FORMAT, 11_542)
        .payload(&body(len)[..64])
}

#[test]
fn rfc7959_2_4_a_large_answer_is_fetched_whole() {
    let mut bench = Bench::new();
    let request = Request {
        accept: Some(11_542),
        query: vec!["q".into()],
        ..Request::new(Code::GET, &["big"])
    };
    let (handle, sent) = start(&mut bench, request);
    let mut sent = bench.ask(&first_block(&sent, 150, b"e"));
    for num in 1..3_u32 {
        assert_eq!(sent.block(number::BLOCK2), Some((num, false, 64)));
        assert_eq!(
            (sent.get(number::ACCEPT), sent.get(number::URI_QUERY)),
            (Some(11_542), Some(u32::from(b'q')))
        );
        let at = num as usize * 64;
        let block = Msg::answer(&sent, Code::CONTENT)
            .block2(num, num < 2, 64)
            .option(number::ETAG, b"e");
        let sent_next = bench.feed(&block.payload(&body(150)[at..150.min(at + 64)]));
        sent = sent_next.into_iter().next().unwrap_or(sent);
    }
    let response = answer(&mut bench, handle);
    assert_eq!(
        (response.payload, response.content_format, response.block2),
        (body(150), Some(11_542), None)
    );
}

#[test]
fn rfc7959_2_4_a_changed_etag_starts_again_and_gives_up_in_the_end() {
    let mut bench = Bench::new();
    let (handle, sent) = start(&mut bench, Request::new(Code::GET, &["big"]));
    let mut sent = bench.ask(&first_block(&sent, 150, b"0"));
    for round in 1..=4_u8 {
        let changed = Msg::answer(&sent, Code::CONTENT)
            .block2(1, true, 64)
            .option(number::ETAG, &[round]);
        let next = bench.feed(&changed.payload(&[0; 64]));
        if round == 4 {
            assert_eq!(next, []);
            break;
        }
        assert_eq!(next[0].block(number::BLOCK2), Some((0, false, 64)));
        sent = bench.ask(&first_block(&next[0], 150, &[round]));
    }
    assert_eq!(failure(&mut bench, handle), Reason::Protocol);
}

#[test]
fn a_post_is_not_repeated_for_the_sake_of_its_answer() {
    let mut bench = Bench::new();
    let request = Request {
        payload: b"go".to_vec(),
        ..Request::new(Code::POST, &["big"])
    };
    let (handle, sent) = start(&mut bench, request);
    let next = bench.ask(&first_block(&sent, 150, b"a"));
    assert_eq!(
        (next.payload.len(), next.block(number::BLOCK2)),
        (0, Some((1, false, 64)))
    );
    bench.feed(
        &Msg::answer(&next, Code::CONTENT)
            .block2(1, false, 64)
            .option(number::ETAG, b"b")
            .payload(b"x"),
    );
    assert_eq!(failure(&mut bench, handle), Reason::Protocol);
}

#[test]
fn rfc8132_2_1_the_later_blocks_of_a_fetch_carry_its_body_again() {
    let mut bench = Bench::new();
    let request = Request {
        payload: b"what".to_vec(),
        content_format: Some(112),
        ..Request::new(Code::FETCH, &["x"])
    };
    let (_, sent) = start(&mut bench, request);
    let next = bench.ask(&first_block(&sent, 150, b"a"));
    assert_eq!(
        (&next.payload[..], next.get(number::CONTENT_FORMAT)),
        (&b"what"[..], Some(112))
    );
}

#[test]
fn an_answer_above_the_bound_fails_as_too_large() {
    for announced in [false, true] {
        let mut bench = Bench::with(Config {
            max_body: 100,
            ..Config::default()
        });
        let (handle, sent) = start(&mut bench, Request::new(Code::GET, &["big"]));
        let first = first_block(&sent, 150, b"e");
        if announced {
            assert_eq!(bench.feed(&first.number(number::SIZE2, 150)), []);
        } else {
            let next = bench.ask(&first);
            let more = Msg::answer(&next, Code::CONTENT)
                .block2(1, true, 64)
                .option(number::ETAG, b"e");
            bench.feed(&more.payload(&[0; 64]));
        }
        assert_eq!(failure(&mut bench, handle), Reason::TooLarge);
    }
}

#[test]
fn a_wrong_block_is_a_breach_of_the_protocol() {
    let mut bench = Bench::new();
    let (handle, sent) = start(&mut bench, Request::new(Code::GET, &["big"]));
    let next = bench.ask(&first_block(&sent, 150, b"e"));
    bench.feed(
        &Msg::answer(&next, Code::CONTENT)
            .block2(0, true, 64)
            .option(number::ETAG, b"e")
            .payload(&[0; 64]),
    );
    assert_eq!(failure(&mut bench, handle), Reason::Protocol);
}

#[test]
fn one_block_can_be_fetched_alone() {
    let mut bench = Bench::new();
    let request = Request {
        block2: Some(Block::new(7, false, 64)),
        ..Request::new(Code::GET, &["big"])
    };
    let (handle, sent) = start(&mut bench, request);
    assert_eq!(sent.block(number::BLOCK2), Some((7, false, 64)));
    let block = Msg::answer(&sent, Code::CONTENT)
        .block2(7, true, 64)
        .number(number::SIZE2, 9999);
    assert_eq!(bench.feed(&block.payload(&[1; 64])), []);
    let response = answer(&mut bench, handle);
    assert_eq!(
        (response.block2, response.size2),
        (Some(Block::new(7, true, 64)), Some(9999))
    );
    assert_eq!(response.payload.len(), 64);
}

#[test]
fn an_error_in_mid_transfer_is_the_answer() {
    let mut bench = Bench::new();
    let (handle, sent) = start(&mut bench, Request::new(Code::GET, &["big"]));
    let next = bench.ask(&first_block(&sent, 150, b"e"));
    bench.feed(&Msg::answer(&next, Code::NOT_FOUND));
    assert_eq!(answer(&mut bench, handle).code, Code::NOT_FOUND);
}
