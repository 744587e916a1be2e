//! Whatever arrives, a stack sends well-formed messages only, stays within its bounds, and forgets everything in time.

mod common;

use coap::{Code, Config, Delivery, Kind, Request, Response};
use common::{Bench, Msg, PEER, secs};
use proptest::collection::vec;
use proptest::prelude::*;

/// Messages that are nearly meaningful: few ids and tokens, real options with random values.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let option = (
        prop::sample::select(vec![1_u16, 4, 6, 9, 11, 12, 14, 15, 17, 23, 27, 28, 35, 60]),
        vec(any::<u8>(), 0..4),
    );
    let code = prop::sample::select(vec![
        0_u8, 1, 2, 3, 5, 31, 64, 65, 69, 95, 128, 136, 141, 163, 200,
    ]);
    let parts = (
        0_u8..4,
        code,
        0_u16..6,
        vec(0_u8..3, 0..2),
        vec(option, 0..5),
        vec(any::<u8>(), 0..70),
    );
    let whole = parts.prop_map(|(kind, code, mid, token, options, payload)| {
        if code == 0 {
            return Msg::empty(Kind::from_bits(kind), mid).bytes();
        }
        let msg = Msg::new(Kind::from_bits(kind), Code(code), mid, &token).payload(&payload);
        options
            .iter()
            .fold(msg, |msg, (number, value)| msg.option(*number, value))
            .bytes()
    });
    let cut = (whole.clone(), any::<prop::sample::Index>())
        .prop_map(|(bytes, at)| bytes[..at.index(bytes.len())].to_vec());
    prop_oneof![8 => whole, 1 => cut, 1 => vec(any::<u8>(), 0..60)]
}

proptest! {
    #[test]
    fn no_sequence_of_datagrams_breaks_a_stack(datagrams in vec((message(), 0_u64..40, any::<bool>()), 1..60), seed: u64) {
        let config = Config { max_seen: 16, max_exchanges: 8, max_assemblies: 3, max_answers: 2, ..Config::default() };
        let mut bench = Bench::with(config);
        for observe in [None, Some(0)] {
            let request = Request { observe, ..Request::new(Code::GET, &["x"]) };
            prop_assert!(bench.stack.request(PEER, request, Delivery::default(), bench.now).is_ok());
        }
        for (datagram, pause, answered) in datagrams {
            bench.feed_bytes(&datagram);
            for event in bench.events() {
                if let coap::Event::Request { exchange, request, .. } = event && answered {
                    let payload = vec![0; usize::try_from(seed % 3000).expect("small")];
                    let response = Response { payload, observe: request.observe, ..Response::new(Code::CONTENT) };
                    prop_assert!(bench.stack.respond(exchange, response, bench.now).is_ok());
                }
            }
            bench.pass(secs(pause));
            let sizes = bench.stack.statistics();
            prop_assert!(sizes.seen <= 16 && sizes.exchanges <= 8 && sizes.assemblies <= 3 && sizes.answers <= 2);
        }
        bench.stack.forget_peer(PEER, bench.now);
        bench.pass(secs(600));
        let left = bench.stack.statistics();
        prop_assert_eq!((left.calls, left.peers, left.exchanges, left.seen), (0, 0, 0, 0));
        prop_assert_eq!((left.assemblies, left.answers, left.timers), (0, 0, 0));
    }
}
