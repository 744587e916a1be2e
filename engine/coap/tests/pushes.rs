//! Pushes: Block1 transfers out of a source, as real devices take them (RFC 7959 2.5, 2.9).

mod common;

use std::sync::Arc;

use coap::{Code, Config, Delivery, Event, Handle, Push, Reason, Request, RequestError, Response, number};
use common::{Bench, Msg, PEER, body, secs};

fn push_from(bench: &mut Bench, len: usize, offset: u64, block_size: u16) -> (Handle, Msg) {
    let push = Push {
        code: Code::PUT,
        path: vec!["5".into(), "0".into(), "0".into()],
        query: Vec::new(),
        content_format: Some(42),
        source: Arc::new(body(len)),
        offset,
        block_size,
    };
    let handle = bench.stack.push(PEER, push, bench.now).expect("room");
    (handle, bench.one_sent())
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

/// Acknowledges blocks until the push ends; the bytes that arrived.
fn take_all(bench: &mut Bench, mut sent: Msg) -> Vec<u8> {
    let mut taken = Vec::new();
    loop {
        taken.extend_from_slice(&sent.payload);
        let more = sent.block(number::BLOCK1).is_some_and(|(_, more, _)| more);
        if !more {
            bench.feed(&Msg::answer(&sent, Code::CHANGED));
            return taken;
        }
        sent = bench.ask(&go_on(&sent));
    }
}

#[test]
fn a_push_sends_all_with_size1_first_and_coarse_progress() {
    let mut bench = Bench::with(Config {
        progress_bytes: 4096,
        ..Config::default()
    });
    let (handle, sent) = push_from(&mut bench, 20_000, 0, 512);
    assert_eq!(
        (sent.block(number::BLOCK1), sent.get(number::SIZE1)),
        (Some((0, true, 512)), Some(20_000))
    );
    assert_eq!(take_all(&mut bench, sent), body(20_000));
    let mut events = bench.events();
    assert!(matches!(events.pop(), Some(Event::Response { handle: found, .. }) if found == handle));
    let progress: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Progress {
                offset,
                size: 20_000,
                repeated: 0,
                ..
            } => *offset,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(progress, [4096, 8192, 12_288, 16_384, 20_000]);
    assert_eq!(bench.stack.statistics().pushed_blocks, 40);
}

#[test]
fn a_push_resumes_at_any_offset_with_size1_on_its_first_block() {
    let mut bench = Bench::new();
    let (_, sent) = push_from(&mut bench, 20_000, 9000, 512);
    assert_eq!(
        (sent.block(number::BLOCK1), sent.get(number::SIZE1)),
        (Some((17, true, 512)), Some(20_000))
    );
    assert_eq!(take_all(&mut bench, sent), &body(20_000)[17 * 512..]);
}

#[test]
fn a_push_of_one_block_needs_no_block1() {
    let mut bench = Bench::new();
    let (handle, sent) = push_from(&mut bench, 100, 0, 512);
    assert_eq!((sent.block(number::BLOCK1), sent.payload.len()), (None, 100));
    bench.feed(&Msg::answer(&sent, Code::CHANGED));
    assert_eq!(answer(&mut bench, handle).code, Code::CHANGED);
}

#[test]
fn a_push_of_nothing_or_of_too_many_blocks_is_refused() {
    let mut bench = Bench::new();
    let mut refused = |len: usize, offset, block_size| {
        let push = Push {
            code: Code::PUT,
            path: vec!["f".into()],
            query: Vec::new(),
            content_format: None,
            source: Arc::new(vec![0; len]),
            offset,
            block_size,
        };
        matches!(
            bench.stack.push(PEER, push, bench.now),
            Err(RequestError::Invalid(_))
        )
    };
    assert!(refused(0, 0, 512) && refused(100, 100, 512) && refused((16 << 20) + 1, 0, 16));
}

#[test]
fn a_push_shrinks_and_never_grows() {
    let mut bench = Bench::new();
    let (_, sent) = push_from(&mut bench, 5000, 0, 1024);
    let next = bench.ask(&Msg::answer(&sent, Code::CONTINUE).block1(0, true, 256));
    assert_eq!(next.block(number::BLOCK1), Some((4, true, 256)));
    let next = bench.ask(&Msg::answer(&next, Code::REQUEST_ENTITY_TOO_LARGE).block1(4, true, 64));
    assert_eq!(
        (next.block(number::BLOCK1), &next.payload[..]),
        (Some((16, true, 64)), &body(5000)[1024..1088])
    );
    assert_eq!(take_all(&mut bench, next), &body(5000)[1024..]);
}

#[test]
fn a_push_after_4_08_begins_at_0_also_when_it_was_resumed() {
    let mut bench = Bench::new();
    let (_, sent) = push_from(&mut bench, 5000, 2048, 1024);
    let first = bench.ask(&Msg::answer(&sent, Code::REQUEST_ENTITY_INCOMPLETE));
    assert_eq!(
        (first.block(number::BLOCK1), first.get(number::SIZE1)),
        (Some((0, true, 1024)), Some(5000))
    );
    assert_eq!(take_all(&mut bench, first), body(5000));
    let repeated = bench.events().iter().rev().find_map(|event| match event {
        Event::Progress { repeated, .. } => Some(*repeated),
        _ => None,
    });
    assert_eq!(
        repeated,
        Some(3),
        "what lies before the end of the furthest block was sent by this push or the one it resumed"
    );
}

#[test]
fn a_push_that_is_too_large_for_the_device_fails_as_such() {
    let mut bench = Bench::new();
    let (handle, sent) = push_from(&mut bench, 20_000, 8192, 512);
    bench.feed(&Msg::answer(&sent, Code::REQUEST_ENTITY_TOO_LARGE));
    assert_eq!(failure(&mut bench, handle), Reason::TooLarge);
}

#[test]
fn a_push_waits_out_a_device_that_locks_itself_for_300_seconds() {
    let mut bench = Bench::new();
    let (_, mut sent) = push_from(&mut bench, 5000, 1024, 1024);
    let begin = bench.now;
    let mut tries = 0;
    while bench.now.since(begin) < secs(300) {
        assert_eq!(bench.feed(&Msg::answer(&sent, Code::SERVICE_UNAVAILABLE)), []);
        let step = (0..70).find_map(|_| bench.pass(secs(1)).pop());
        let again = step.unwrap_or_else(|| panic!("given up after {:?}", bench.now - begin));
        assert_eq!(
            (again.block(number::BLOCK1), &again.payload),
            (sent.block(number::BLOCK1), &sent.payload)
        );
        sent = again;
        tries += 1;
    }
    assert!(tries < 15, "{tries} tries are too many");
    assert_eq!(take_all(&mut bench, sent), &body(5000)[1024..]);
}

#[test]
fn a_push_to_a_device_that_stays_busy_ends_with_5_03() {
    let mut bench = Bench::new();
    let (handle, mut sent) = push_from(&mut bench, 5000, 0, 1024);
    let begin = bench.now;
    loop {
        bench.feed(&Msg::answer(&sent, Code::SERVICE_UNAVAILABLE).number(number::MAX_AGE, 30));
        let Some(again) = (0..31).find_map(|_| bench.pass(secs(1)).pop()) else {
            break;
        };
        sent = again;
    }
    assert_eq!(answer(&mut bench, handle).code, Code::SERVICE_UNAVAILABLE);
    assert!(bench.now.since(begin) > secs(300));
}

#[test]
fn a_push_repeats_the_same_datagram_and_gives_up_without_progress() {
    let mut bench = Bench::with(Config {
        transfer_timeout: secs(140),
        ..Config::default()
    });
    let (handle, sent) = push_from(&mut bench, 5000, 0, 1024);
    let begin = bench.now;
    while bench.events().is_empty() {
        let again = bench.pass(secs(1));
        assert!(again.iter().all(|again| *again == sent));
        assert!(bench.now.since(begin) < secs(142));
    }
    assert!(bench.now.since(begin) >= secs(140));
    assert!(!bench.stack.cancel(handle, bench.now));
}

#[test]
fn a_push_measures_its_time_out_from_the_last_progress() {
    let mut bench = Bench::with(Config {
        transfer_timeout: secs(100),
        ..Config::default()
    });
    let (handle, mut sent) = push_from(&mut bench, 5000, 0, 1024);
    for _ in 0..4 {
        bench.pass(secs(90));
        sent = bench.ask(&go_on(&sent));
    }
    bench.events();
    bench.pass(secs(101));
    assert_eq!(failure(&mut bench, handle), Reason::Timeout);
}

#[test]
fn a_push_uses_a_new_message_when_the_answer_to_an_acknowledged_block_is_lost() {
    let mut bench = Bench::new();
    let (_, sent) = push_from(&mut bench, 5000, 0, 1024);
    bench.feed(&Msg::empty(coap::Kind::Acknowledgement, sent.mid));
    let again = bench.pass(secs(94)).remove(0);
    assert_eq!(
        (again.block(number::BLOCK1), &again.payload),
        (sent.block(number::BLOCK1), &sent.payload)
    );
    assert!(again.mid != sent.mid && again.token != sent.token);
}

#[test]
fn a_peer_that_takes_the_first_block_for_all_fails_the_push() {
    let mut bench = Bench::new();
    let (handle, sent) = push_from(&mut bench, 5000, 0, 1024);
    bench.feed(&Msg::answer(&sent, Code::CHANGED));
    assert_eq!(failure(&mut bench, handle), Reason::Protocol);
}

#[test]
fn an_error_of_the_device_is_the_answer_to_a_push() {
    let mut bench = Bench::new();
    let (handle, sent) = push_from(&mut bench, 5000, 0, 1024);
    bench.feed(&Msg::answer(&sent, Code::METHOD_NOT_ALLOWED));
    assert_eq!(answer(&mut bench, handle).code, Code::METHOD_NOT_ALLOWED);
}

#[test]
fn a_reset_ends_a_push_and_a_cancelled_one_sends_no_more() {
    let mut bench = Bench::new();
    let (handle, sent) = push_from(&mut bench, 5000, 0, 1024);
    bench.feed(&Msg::empty(coap::Kind::Reset, sent.mid));
    assert_eq!(failure(&mut bench, handle), Reason::Reset);
    let (handle, sent) = push_from(&mut bench, 5000, 0, 1024);
    bench.stack.cancel(handle, bench.now);
    assert_eq!(failure(&mut bench, handle), Reason::Cancelled);
    assert_eq!(bench.feed(&go_on(&sent)), []);
    assert_eq!(bench.pass(secs(300)), []);
}

#[test]
fn requests_go_out_between_the_blocks_of_a_push() {
    let mut bench = Bench::new();
    let (_, sent) = push_from(&mut bench, 5000, 0, 1024);
    bench
        .stack
        .request(
            PEER,
            Request::new(Code::GET, &["x"]),
            Delivery::default(),
            bench.now,
        )
        .expect("room");
    let between = bench.ask(&go_on(&sent));
    assert_eq!(between.code, Code::GET);
    let next = bench.ask(&Msg::answer(&between, Code::CONTENT));
    assert_eq!(next.block(number::BLOCK1), Some((1, true, 1024)));
}

#[test]
fn a_block_that_times_out_while_requests_wait_goes_behind_them() {
    let mut bench = Bench::new();
    let (_, sent) = push_from(&mut bench, 5000, 0, 1024);
    bench
        .stack
        .request(
            PEER,
            Request::new(Code::GET, &["x"]),
            Delivery::default(),
            bench.now,
        )
        .expect("room");
    let mut between = Vec::new();
    while between.is_empty() {
        between = bench.pass(secs(1));
        between.retain(|msg| *msg != sent);
    }
    assert_eq!(between[0].code, Code::GET);
    let again = bench.ask(&Msg::answer(&between[0], Code::CONTENT));
    assert_eq!(
        (again.block(number::BLOCK1), &again.payload),
        (sent.block(number::BLOCK1), &sent.payload)
    );
    assert_ne!(again.mid, sent.mid);
}
