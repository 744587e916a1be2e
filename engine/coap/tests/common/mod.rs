//! Hand-made messages against one stack, and two stacks over a simulated network in virtual time.

#![allow(dead_code)]

pub mod network;

use std::time::Duration;

use coap::{
    Block, Code, Config, Encoder, Event, Instant, Kind, Local, Message, PassAll, Stack, Token, number,
};

/// A message by value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msg {
    pub kind: Kind,
    pub code: Code,
    pub mid: u16,
    pub token: Token,
    pub options: Vec<(u16, Vec<u8>)>,
    pub payload: Vec<u8>,
}

impl Msg {
    pub fn new(kind: Kind, code: Code, mid: u16, token: &[u8]) -> Self {
        let token = Token::new(token).expect("at most 8 bytes");
        Self {
            kind,
            code,
            mid,
            token,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    pub fn con(code: Code, mid: u16, token: &[u8]) -> Self {
        Self::new(Kind::Confirmable, code, mid, token)
    }

    pub fn non(code: Code, mid: u16, token: &[u8]) -> Self {
        Self::new(Kind::NonConfirmable, code, mid, token)
    }

    /// An empty ACK or RST.
    pub fn empty(kind: Kind, mid: u16) -> Self {
        Self::new(kind, Code::EMPTY, mid, &[])
    }

    /// The piggybacked answer to `request`.
    pub fn answer(request: &Self, code: Code) -> Self {
        Self {
            kind: Kind::Acknowledgement,
            code,
            options: Vec::new(),
            payload: Vec::new(),
            ..request.clone()
        }
    }

    pub fn option(mut self, number: u16, value: &[u8]) -> Self {
        self.options.push((number, value.to_vec()));
        self
    }

    pub fn number(self, number: u16, value: u32) -> Self {
        let bytes = value.to_be_bytes();
        let skip = bytes.iter().take_while(|byte| **byte == 0).count();
        self.option(number, &bytes[skip..])
    }

    pub fn path(self, segments: &[&str]) -> Self {
        segments.iter().fold(self, |msg, segment| {
            msg.option(number::URI_PATH, segment.as_bytes())
        })
    }

    pub fn block1(self, num: u32, more: bool, size: u16) -> Self {
        self.number(number::BLOCK1, Block::new(num, more, size).to_uint())
    }

    pub fn block2(self, num: u32, more: bool, size: u16) -> Self {
        self.number(number::BLOCK2, Block::new(num, more, size).to_uint())
    }

    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.sort_by_key(|(number, _)| *number);
        let mut buf = Vec::new();
        let mut encoder = Encoder::new(&mut buf, self.kind, self.code, self.mid, self.token);
        for (number, value) in &options {
            encoder.option(*number, value);
        }
        encoder.payload(&self.payload);
        assert!(!encoder.is_broken());
        buf
    }

    pub fn parse(bytes: &[u8]) -> Self {
        let message = Message::parse(bytes).expect("the stack sends well-formed messages");
        Self {
            kind: message.kind,
            code: message.code,
            mid: message.mid,
            token: message.token,
            options: message
                .options
                .iter()
                .map(|(number, value)| (number, value.to_vec()))
                .collect(),
            payload: message.payload.to_vec(),
        }
    }

    pub fn get(&self, number: u16) -> Option<u32> {
        let (_, value) = self.options.iter().find(|(found, _)| *found == number)?;
        Some(coap::options::uint(value))
    }

    pub fn block(&self, number: u16) -> Option<(u32, bool, usize)> {
        let block = Block::from_uint(self.get(number)?);
        Some((block.num, block.more, block.size()))
    }
}

/// One stack, its peer 7 played by the test.
pub struct Bench {
    pub stack: Stack<u8>,
    pub now: Instant,
}

pub const PEER: u8 = 7;

impl Bench {
    pub fn new() -> Self {
        Self::with(Config::default())
    }

    pub fn with(config: Config) -> Self {
        Self {
            stack: Stack::new(config, 4711),
            now: Instant::from_micros(1_000_000_000),
        }
    }

    /// What the stack sends on receiving a message.
    pub fn feed(&mut self, msg: &Msg) -> Vec<Msg> {
        self.feed_bytes(&msg.bytes())
    }

    pub fn feed_bytes(&mut self, datagram: &[u8]) -> Vec<Msg> {
        self.feed_with(datagram, &mut PassAll)
    }

    pub fn feed_with(&mut self, datagram: &[u8], local: &mut impl Local<u8>) -> Vec<Msg> {
        self.stack.receive_datagram(PEER, datagram, self.now, local);
        self.sent()
    }

    /// The only message sent on receiving one.
    pub fn ask(&mut self, msg: &Msg) -> Msg {
        let mut sent = self.feed(msg);
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    pub fn sent(&mut self) -> Vec<Msg> {
        let mut sent = Vec::new();
        while let Some(transmit) = self.stack.poll_transmit() {
            sent.push(Msg::parse(transmit.datagram));
        }
        sent
    }

    pub fn one_sent(&mut self) -> Msg {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// Lets time pass, timer by timer; what was sent meanwhile.
    pub fn pass(&mut self, time: Duration) -> Vec<Msg> {
        let end = self.now + time;
        let mut sent = Vec::new();
        while let Some(at) = self.stack.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.stack.handle_timeout(self.now);
            sent.append(&mut self.sent());
        }
        self.now = end;
        sent
    }

    pub fn events(&mut self) -> Vec<Event<u8>> {
        std::iter::from_fn(|| self.stack.poll_event()).collect()
    }

    pub fn one_event(&mut self) -> Event<u8> {
        let mut events = self.events();
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    /// The exchange and the request of the only event.
    pub fn request(&mut self) -> (coap::Exchange, coap::Request) {
        match self.one_event() {
            Event::Request {
                exchange, request, ..
            } => (exchange, request),
            other => panic!("{other:?}"),
        }
    }

    pub fn respond(&mut self, exchange: coap::Exchange, response: coap::Response) -> Msg {
        self.stack
            .respond(exchange, response, self.now)
            .expect("the exchange waits");
        self.one_sent()
    }
}

pub fn content(payload: &[u8]) -> coap::Response {
    coap::Response {
        payload: payload.to_vec(),
        ..coap::Response::new(Code::CONTENT)
    }
}

/// Bytes in which every block differs.
pub fn body(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from((at * 31 + at / 251 * 7) % 256).unwrap_or_default())
        .collect()
}

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
