//! Invariant: no sequence of datagrams, calls and time steps makes a stack panic, send something that is no message,
//! or keep more than its bounds; when all peers are forgotten and all lifetimes are over nothing is left.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use coap::{
    Blob, Block, Code, Config, Delivery, Encoder, Event, Exchange, Handle, Instant, Kind, Local, Message,
    Push, Reply, Request, Response, Stack, Token, Verdict,
};
use libfuzzer_sys::fuzz_target;

const PEERS: u8 = 3;

/// Takes numbers and bytes off the input; zeros at its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }
}

/// Answers by the first letter of the path.
struct Site([u8; 300]);

impl Local<u8> for Site {
    fn request(&mut self, _: u8, request: &Message<'_>, reply: &mut Reply<'_>) -> Verdict {
        match request
            .options
            .path()
            .next()
            .map(|segment| segment.as_bytes().first().copied())
        {
            Some(Some(b'l')) => {
                Blob {
                    bytes: &self.0,
                    etag: b"e",
                    content_format: Some(42),
                }
                .serve(request, 64, reply);
                Verdict::Answered
            }
            Some(Some(b'o')) => {
                reply.code(Code::CHANGED);
                Verdict::AnsweredOnce
            }
            Some(Some(b's')) => Verdict::PassStreamed,
            Some(Some(b'd')) => Verdict::Drop,
            Some(Some(b'x')) => {
                reply.uint(60, 1);
                reply.uint(6, 1);
                Verdict::Answered
            }
            _ => Verdict::Pass,
        }
    }
}

struct World {
    stack: Stack<u8>,
    site: Site,
    now: Instant,
    exchanges: Vec<Exchange>,
    handles: Vec<Handle>,
    /// Header fields of the message sent last, so that answers can be made to it.
    last: (u8, u16, Token),
}

fn config() -> Config {
    Config {
        block_size: 64,
        progress_bytes: 100,
        max_body: 1000,
        max_assemblies: 4,
        max_assembly_bytes: 2000,
        max_answers: 3,
        max_answer_bytes: 3000,
        max_peers: 8,
        max_queued: 3,
        max_calls: 12,
        max_exchanges: 10,
        max_seen: 20,
        max_seen_bytes: 2000,
        max_events: 12,
        max_output: 4000,
        ..Config::default()
    }
}

fn response(input: &mut Input<'_>) -> Response {
    let code = input.byte();
    let payload = vec![code; usize::from(input.byte()) * 3];
    let etag = (code & 1 == 1).then(|| vec![code; usize::from(code >> 4)]);
    let observe = (code & 2 == 2).then_some(0);
    let block1 = (code & 32 == 32).then_some(Block::new(u32::from(code), false, 64));
    let code = if code & 4 == 4 { Code(code) } else { Code::CONTENT };
    Response {
        payload,
        etag,
        observe,
        block1,
        ..Response::new(code)
    }
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        let peer = op >> 4 & 3;
        match op & 15 {
            0..=3 => {
                let datagram = input.bytes();
                self.stack
                    .receive_datagram(peer % PEERS, datagram, self.now, &mut self.site);
            }
            4..=6 => self.answer_last(input),
            7 => self.pass(Duration::from_millis(u64::from(input.byte()) * 40)),
            8 => self.pass(Duration::from_secs(u64::from(input.byte()) * 2)),
            9 => {
                let code = Code(1 + input.byte() % 7);
                let payload = vec![1; usize::from(input.byte()) * 2];
                let flags = input.byte();
                let observe = (flags & 1 == 1).then_some(0);
                let block2 = (flags & 2 == 2).then_some(Block::new(3, false, 64));
                let request = Request {
                    payload,
                    observe,
                    block2,
                    ..Request::new(code, &["a"])
                };
                let delivery = Delivery {
                    confirmable: flags & 4 == 0,
                    timeout: None,
                };
                self.handles
                    .extend(self.stack.request(peer % PEERS, request, delivery, self.now));
            }
            10 => {
                let push = Push {
                    code: Code::PUT,
                    path: vec!["5".into()],
                    query: Vec::new(),
                    content_format: None,
                    source: Arc::new(vec![7; 500]),
                    offset: u64::from(input.byte()) * 2,
                    block_size: 64,
                };
                self.handles.extend(self.stack.push(peer % PEERS, push, self.now));
            }
            11 | 12 => {
                let at = usize::from(input.byte());
                if let Some(exchange) = self.exchanges.get(at % self.exchanges.len().max(1)).copied() {
                    let response = response(input);
                    if op & 1 == 1 {
                        let _ = self.stack.respond(exchange, response, self.now);
                    } else {
                        let _ = self.stack.notify(exchange, response, at & 128 == 0, self.now);
                    }
                }
            }
            13 | 14 => {
                let at = usize::from(input.byte());
                if let Some(handle) = self.handles.get(at % self.handles.len().max(1)).copied() {
                    if op & 1 == 1 {
                        self.stack.cancel(handle, self.now);
                    } else {
                        self.stack.forget(handle, self.now);
                    }
                }
            }
            _ if peer == 3 => {
                let at = usize::from(input.byte());
                if let Some(exchange) = self.exchanges.get(at % self.exchanges.len().max(1)).copied() {
                    self.stack.release(exchange, self.now);
                }
            }
            _ => self.stack.forget_peer(peer, self.now),
        }
        self.look();
    }

    /// An answer to, or a further message under the token of, the message sent last.
    fn answer_last(&mut self, input: &mut Input<'_>) {
        let (peer, mid, token) = self.last;
        let kind = Kind::from_bits(input.byte());
        let code = Code(input.byte());
        let tail = input.bytes();
        let mid = if matches!(kind, Kind::Confirmable | Kind::NonConfirmable) {
            mid ^ 0x8000
        } else {
            mid
        };
        let token = if code == Code::EMPTY { Token::EMPTY } else { token };
        let mut buf = Vec::new();
        Encoder::new(&mut buf, kind, code, mid, token);
        buf.extend_from_slice(tail);
        self.stack.receive_datagram(peer, &buf, self.now, &mut self.site);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while let Some(at) = self.stack.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.stack.handle_timeout(self.now);
            self.look();
            steps += 1;
            assert!(steps < 100_000, "time does not go on");
        }
        self.now = end;
    }

    fn look(&mut self) {
        let config = self.stack.config().clone();
        let sizes = self.stack.statistics();
        assert!(sizes.calls <= config.max_calls + 1);
        assert!(sizes.peers <= config.max_peers && sizes.exchanges <= config.max_exchanges);
        assert!(sizes.seen <= config.max_seen && sizes.answers <= config.max_answers);
        assert!(sizes.assemblies <= config.max_assemblies + 1);
        assert!(sizes.timers <= sizes.calls + sizes.exchanges);
        assert!(sizes.events <= config.max_events + 3 * (config.max_calls + config.max_exchanges));
        while let Some(transmit) = self.stack.poll_transmit() {
            let message = Message::parse(transmit.datagram).expect("what is sent is a message");
            self.last = (transmit.peer, message.mid, message.token);
        }
        while let Some(event) = self.stack.poll_event() {
            if let Event::Request { exchange, .. } = event {
                self.exchanges.push(exchange);
                let surplus = self.exchanges.len().saturating_sub(8);
                self.exchanges.drain(..surplus);
            }
        }
        let surplus = self.handles.len().saturating_sub(8);
        self.handles.drain(..surplus);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut world = World {
        stack: Stack::new(config(), u64::from(input.byte())),
        site: Site([9; 300]),
        now: Instant::from_micros(1_000_000_000),
        exchanges: Vec::new(),
        handles: Vec::new(),
        last: (0, 0, Token::EMPTY),
    };
    while !input.0.is_empty() {
        world.step(&mut input);
    }
    for peer in 0..PEERS {
        world.stack.forget_peer(peer, world.now);
    }
    world.look();
    world.pass(Duration::from_secs(600));
    let left = world.stack.statistics();
    let sizes = [
        left.calls,
        left.peers,
        left.exchanges,
        left.seen,
        left.assemblies,
        left.answers,
        left.timers,
    ];
    assert_eq!(sizes, [0; 7], "{left:?}");
});
