//! Whole exchanges over a link with loss up to 40 %, duplication, reordering and delay: every one ends exactly
//! once, what finishes is byte-exact, a request is carried out at most once, and no state is left behind.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coap::{Code, Config, Delivery, Event, Handle, Instant, Push, Reason, Request, Response, Stack};
use common::network::{Link, Network, SERVER};
use common::{body, content, secs};

const HOUR: Duration = Duration::from_secs(3600);

fn links() -> Vec<Link> {
    [(0.0, 0.0, 1), (0.1, 0.1, 50), (0.25, 0.1, 300), (0.4, 0.3, 1200)]
        .map(|(loss, duplication, millis)| Link {
            loss,
            duplication,
            delay: Duration::from_millis(millis),
        })
        .to_vec()
}

/// How each handle ended; panics when one ended twice.
fn ends(network: &mut Network) -> HashMap<Handle, Result<Response, Reason>> {
    let mut ends = HashMap::new();
    for event in std::mem::take(&mut network.events) {
        let (handle, end) = match event {
            Event::Response { handle, response, .. } => (handle, Ok(response)),
            Event::Failure { handle, reason, .. } => (handle, Err(reason)),
            _ => continue,
        };
        assert!(
            ends.insert(handle, end).is_none(),
            "seed {}: {handle:?} ended twice",
            network.seed
        );
    }
    ends
}

fn each_link(seeds: u64, mut run: impl FnMut(&mut Network)) {
    for link in links() {
        for seed in 0..seeds {
            let mut network = Network::new(seed * 7919 + 13, link, &Config::default());
            // The server may prefer smaller blocks than the client.
            let block_size = [64, 256, 1024][usize::try_from(seed % 3).expect("small")];
            network.server = Stack::new(
                Config {
                    block_size,
                    ..Config::default()
                },
                seed,
            );
            run(&mut network);
            let end = network.now + HOUR;
            network.run(end, |_, _, _| {});
            network.assert_clean();
        }
    }
}

#[test]
fn every_request_ends_and_is_carried_out_at_most_once() {
    let mut answered = 0;
    each_link(300, |network| {
        let mut handles = Vec::new();
        for number in 0..12_u8 {
            let confirmable = number % 4 != 3;
            let request = Request {
                payload: vec![number],
                ..Request::new(Code::POST, &["count"])
            };
            let delivery = Delivery {
                confirmable,
                timeout: None,
            };
            let handle = network
                .client
                .request(SERVER, request, delivery, network.now)
                .expect("there is room");
            handles.push((handle, number));
        }
        let mut seen: HashMap<u8, u32> = HashMap::new();
        let mut late = Vec::new();
        let end = network.now + HOUR;
        let origin = network.seed;
        network.run(end, |server: &mut Stack<u8>, event, now| {
            let Event::Request {
                exchange, request, ..
            } = event
            else {
                return;
            };
            *seen.entry(request.payload[0]).or_default() += 1;
            late.push((exchange, request.payload));
            // Every third answer waits for the next request and so becomes a separate one.
            if late.len() % 3 != 0 {
                for (exchange, payload) in late.drain(..) {
                    let response = Response {
                        payload,
                        ..Response::new(Code::CHANGED)
                    };
                    server
                        .respond(exchange, response, now)
                        .unwrap_or_else(|error| panic!("seed {origin}: {error}"));
                }
            }
        });
        assert!(seen.values().all(|times| *times == 1), "seed {origin}: {seen:?}");
        let ends = ends(network);
        for (handle, number) in handles {
            match ends
                .get(&handle)
                .unwrap_or_else(|| panic!("seed {origin}: request {number} has not ended"))
            {
                Ok(response) => {
                    answered += 1;
                    assert_eq!(response.payload, [number], "seed {origin}");
                }
                Err(reason) => assert_eq!(*reason, Reason::Timeout, "seed {origin}"),
            }
        }
    });
    assert!(
        answered > 10_000,
        "{answered} answers are too few for these links"
    );
}

#[test]
fn large_bodies_arrive_whole_in_both_directions() {
    let mut complete = 0;
    each_link(300, |network| {
        let upload = body(5000 + usize::try_from(network.seed % 977).expect("small"));
        let download = body(9000 + usize::try_from(network.seed % 1237).expect("small"));
        let request = Request {
            payload: upload.clone(),
            ..Request::new(Code::POST, &["both"])
        };
        let delivery = Delivery::default();
        let handle = network
            .client
            .request(SERVER, request, delivery, network.now)
            .expect("there is room");
        let end = network.now + HOUR;
        let origin = network.seed;
        let mut times = 0;
        network.run(end, |server: &mut Stack<u8>, event, now| {
            let Event::Request {
                exchange, request, ..
            } = event
            else {
                return;
            };
            assert!(request.payload == upload, "seed {origin}: the body was altered");
            times += 1;
            server
                .respond(exchange, content(&download), now)
                .expect("the exchange waits");
        });
        assert!(times <= 1, "seed {origin}: carried out {times} times");
        match ends(network)
            .remove(&handle)
            .unwrap_or_else(|| panic!("seed {origin}: has not ended"))
        {
            Ok(response) => {
                complete += 1;
                assert!(
                    response.payload == download,
                    "seed {origin}: the answer was altered"
                );
            }
            Err(reason) => assert_eq!(reason, Reason::Timeout, "seed {origin}"),
        }
    });
    assert!(
        complete > 700,
        "{complete} complete transfers are too few for these links"
    );
}

#[test]
fn a_push_arrives_whole_in_spite_of_loss() {
    let mut failed = 0;
    each_link(300, |network| {
        let image: Arc<Vec<u8>> = Arc::new(body(
            30_000 + usize::try_from(network.seed % 3001).expect("small"),
        ));
        let push = Push {
            code: Code::PUT,
            path: vec!["5".into(), "0".into(), "0".into()],
            query: Vec::new(),
            content_format: Some(42),
            source: image.clone(),
            offset: 0,
            block_size: 1024,
        };
        let handle = network
            .client
            .push(SERVER, push, network.now)
            .expect("there is room");
        let end = network.now + 20 * HOUR;
        let origin = network.seed;
        let mut times = 0;
        network.run(end, |server: &mut Stack<u8>, event, now| {
            let Event::Request {
                exchange, request, ..
            } = event
            else {
                return;
            };
            assert!(request.payload == *image, "seed {origin}: the image was altered");
            times += 1;
            server
                .respond(exchange, Response::new(Code::CHANGED), now)
                .expect("the exchange waits");
        });
        assert!(times <= 1, "seed {origin}: {times} bodies");
        let last = network.events.iter().rev().find_map(|event| match event {
            Event::Progress { offset, .. } => Some(*offset),
            _ => None,
        });
        match ends(network)
            .remove(&handle)
            .unwrap_or_else(|| panic!("seed {origin}: has not ended"))
        {
            Ok(response) => {
                assert_eq!((response.code, times), (Code::CHANGED, 1), "seed {origin}");
                assert_eq!(last, Some(image.len() as u64), "seed {origin}");
            }
            Err(reason) => {
                failed += 1;
                assert_eq!(reason, Reason::Timeout, "seed {origin}");
            }
        }
    });
    // No progress for 300 s happens at 40 % loss only.
    assert!(failed <= 30, "{failed} pushes failed");
}

#[test]
fn an_observer_ends_up_with_the_newest_state() {
    let mut up_to_date = 0;
    each_link(300, |network| {
        let request = Request {
            observe: Some(0),
            ..Request::new(Code::GET, &["state"])
        };
        let handle = network
            .client
            .request(SERVER, request, Delivery::default(), network.now)
            .expect("room");
        let origin = network.seed;
        let mut observed = None;
        let mut ended = false;
        for state in 0..20_u32 {
            let payload = if state % 5 == 3 {
                body(3000 + state as usize)
            } else {
                state.to_be_bytes().to_vec()
            };
            if let Some(exchange) = observed {
                // The last one is confirmable, so it arrives unless the observation ends.
                let confirmable = state % 3 == 0 || state == 19;
                ended |= network
                    .server
                    .notify(exchange, content(&payload), confirmable, network.now)
                    .is_err();
            }
            let end = network.now + secs(if state == 19 { 400 } else { 20 });
            network.run(end, |server: &mut Stack<u8>, event, now| match event {
                Event::Request {
                    exchange, request, ..
                } if request.observe == Some(0) => {
                    let response = Response {
                        observe: Some(0),
                        ..content(&payload)
                    };
                    server
                        .respond(exchange, response, now)
                        .expect("the exchange waits");
                    observed = Some(exchange);
                }
                Event::Request { exchange, .. } => {
                    server
                        .respond(exchange, content(&payload), now)
                        .expect("the exchange waits");
                }
                Event::Cancelled { .. } => ended = true,
                _ => {}
            });
        }
        let newest = network.events.iter().rev().find_map(|event| match event {
            Event::Notification { response, .. } | Event::Response { response, .. } => Some(response.clone()),
            _ => None,
        });
        let failed = network
            .events
            .iter()
            .any(|event| matches!(event, Event::Failure { .. }));
        if !ended && !failed && observed.is_some() {
            let newest = newest.unwrap_or_else(|| panic!("seed {origin}: nothing arrived"));
            assert_eq!(
                newest.payload,
                19_u32.to_be_bytes(),
                "seed {origin}: not the newest state"
            );
            up_to_date += 1;
        }
        let sizes: Vec<_> = network
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Notification { response, .. } | Event::Response { response, .. } => {
                    Some(&response.payload)
                }
                _ => None,
            })
            .collect();
        for payload in sizes {
            let whole = payload.len() == 4 || *payload == body(payload.len());
            assert!(whole, "seed {origin}: a representation was altered");
        }
        network.client.cancel(handle, network.now);
        let end = network.now + HOUR;
        network.run(end, |_, _, _| {});
        if !ended {
            network.server.forget_peer(0, network.now);
        }
    });
    assert!(
        up_to_date > 900,
        "{up_to_date} observations are too few for these links"
    );
}

#[test]
fn a_peer_that_is_silent_ends_every_call() {
    let link = Link {
        loss: 1.0,
        duplication: 0.0,
        delay: Duration::ZERO,
    };
    let mut network = Network::new(5, link, &Config::default());
    let mut handles = Vec::new();
    for confirmable in [true, false, true] {
        let delivery = Delivery {
            confirmable,
            timeout: None,
        };
        let request = Request::new(Code::GET, &["x"]);
        handles.push(
            network
                .client
                .request(SERVER, request, delivery, network.now)
                .expect("room"),
        );
    }
    let push = Push {
        code: Code::PUT,
        path: vec!["x".into()],
        query: Vec::new(),
        content_format: None,
        source: Arc::new(body(100_000)),
        offset: 65_536,
        block_size: 512,
    };
    handles.push(network.client.push(SERVER, push, network.now).expect("room"));
    network.run(Instant::from_micros(0) + 3 * HOUR, |_, _, _| {});
    let ends = ends(&mut network);
    assert!(
        handles
            .iter()
            .all(|handle| ends.get(handle) == Some(&Err(Reason::Timeout))),
        "{ends:?}"
    );
    network.assert_clean();
}
