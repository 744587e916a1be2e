//! The message format (RFC 7252 3): bytes to a borrowed view and back, without allocation of its own.

use std::fmt;

use crate::block::Block;
use crate::code::{Code, Kind, Token};
use crate::options::Options;

/// A message as a view into its datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// CON, NON, ACK or RST.
    pub kind: Kind,
    /// Method, response code, or 0.00.
    pub code: Code,
    /// Message ID.
    pub mid: u16,
    /// Token.
    pub token: Token,
    /// Options.
    pub options: Options<'a>,
    /// What follows the payload marker; empty when there is none.
    pub payload: &'a [u8],
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Shorter than a header, or not version 1: to be ignored (RFC 7252 3).
    NotCoap,
    /// The header is readable, the rest is not: to be rejected (RFC 7252 4.2, 4.3).
    Malformed {
        /// Type in the header.
        kind: Kind,
        /// Message ID in the header.
        mid: u16,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCoap => f.write_str("not a CoAP message of version 1"),
            Self::Malformed { .. } => f.write_str("message format error"),
        }
    }
}

impl std::error::Error for ParseError {}

impl<'a> Message<'a> {
    /// Parses a datagram.
    ///
    /// # Errors
    /// [`ParseError`] for anything that is not a well-formed message. Options that break the rules of their own
    /// format do not make a message malformed; see [`Options::unknown_critical`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let [first, code, mid_high, mid_low, rest @ ..] = datagram else {
            return Err(ParseError::NotCoap);
        };
        if first >> 6 != 1 {
            return Err(ParseError::NotCoap);
        }
        let kind = Kind::from_bits(first >> 4);
        let mid = u16::from_be_bytes([*mid_high, *mid_low]);
        let code = Code(*code);
        let body =
            Self::parse_rest(usize::from(first & 15), rest).ok_or(ParseError::Malformed { kind, mid })?;
        // An empty message is four bytes (RFC 7252 4.1).
        if code == Code::EMPTY && !rest.is_empty() {
            return Err(ParseError::Malformed { kind, mid });
        }
        let (token, options, payload) = body;
        Ok(Self {
            kind,
            code,
            mid,
            token,
            options,
            payload,
        })
    }

    fn parse_rest(token_len: usize, rest: &'a [u8]) -> Option<(Token, Options<'a>, &'a [u8])> {
        let (token, raw) = rest.split_at_checked(token_len)?;
        let token = Token::new(token)?;
        let mut options = Options::default();
        let mut number = 0_u16;
        let mut first = true;
        let mut at = raw;
        while let Some(&head) = at.first() {
            if head == PAYLOAD_MARKER {
                let payload = at.get(1..).filter(|payload| !payload.is_empty())?;
                let used = raw.len() - at.len();
                options.set_raw(raw.get(..used)?);
                return Some((token, options, payload));
            }
            let (delta, value, next) = split_option(at)?;
            number = number.checked_add(delta)?;
            options.note(number, value, delta == 0 && !first);
            first = false;
            at = next;
        }
        options.set_raw(raw);
        Some((token, options, &[]))
    }
}

const PAYLOAD_MARKER: u8 = 0xff;

/// Splits one option off: delta, value, rest (RFC 7252 3.1). `None` at the end or where the format is broken.
#[inline]
pub(crate) fn split_option(raw: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&head, rest) = raw.split_first()?;
    let (delta, rest) = extended(head >> 4, rest)?;
    let (len, rest) = extended(head & 15, rest)?;
    let (value, rest) = rest.split_at_checked(usize::from(len))?;
    Some((delta, value, rest))
}

#[inline]
fn extended(nibble: u8, rest: &[u8]) -> Option<(u16, &[u8])> {
    match (nibble, rest) {
        (0..=12, _) => Some((u16::from(nibble), rest)),
        (13, [byte, rest @ ..]) => Some((u16::from(*byte) + 13, rest)),
        (14, [high, low, rest @ ..]) => Some((u16::from_be_bytes([*high, *low]).checked_add(269)?, rest)),
        _ => None,
    }
}

/// Appends one message to a buffer. Options must come in ascending order of their numbers, the payload last.
#[derive(Debug)]
pub struct Encoder<'a> {
    buf: &'a mut Vec<u8>,
    start: usize,
    last: u16,
    closed: bool,
    broken: bool,
}

impl<'a> Encoder<'a> {
    /// Begins a message with its header and token.
    pub fn new(buf: &'a mut Vec<u8>, kind: Kind, code: Code, mid: u16, token: Token) -> Self {
        let start = buf.len();
        let token = token.as_bytes();
        let [high, low] = mid.to_be_bytes();
        let token_len = u8::try_from(token.len()).unwrap_or_default();
        buf.extend_from_slice(&[1 << 6 | kind.bits() << 4 | token_len, code.0, high, low]);
        buf.extend_from_slice(token);
        Self {
            buf,
            start,
            last: 0,
            closed: false,
            broken: false,
        }
    }

    /// Replaces the code.
    pub fn code(&mut self, code: Code) {
        if let Some(byte) = self.buf.get_mut(self.start + 1) {
            *byte = code.0;
        }
    }

    /// Appends an option.
    pub fn option(&mut self, number: u16, value: &[u8]) {
        let len = u16::try_from(value.len())
            .ok()
            .filter(|len| *len <= u16::MAX - 269);
        let (Some(delta), Some(len), false) = (number.checked_sub(self.last), len, self.closed) else {
            self.broken = true;
            return;
        };
        let (delta_nibble, delta_more) = nibble(delta);
        let (len_nibble, len_more) = nibble(len);
        self.buf.push(delta_nibble << 4 | len_nibble);
        self.extend(delta_nibble, delta_more);
        self.extend(len_nibble, len_more);
        self.buf.extend_from_slice(value);
        self.last = number;
    }

    fn extend(&mut self, nibble: u8, more: u16) {
        let [high, low] = more.to_be_bytes();
        match nibble {
            13 => self.buf.push(low),
            14 => self.buf.extend_from_slice(&[high, low]),
            _ => {}
        }
    }

    /// Appends a uint option in its shortest form (RFC 7252 3.2).
    pub fn uint(&mut self, number: u16, value: u32) {
        let bytes = value.to_be_bytes();
        let skip = (value.leading_zeros() / 8) as usize;
        self.option(number, bytes.get(skip..).unwrap_or_default());
    }

    /// Appends a uint option when there is a value.
    pub fn maybe(&mut self, number: u16, value: Option<impl Into<u32>>) {
        if let Some(value) = value {
            self.uint(number, value.into());
        }
    }

    /// Appends a Block1 or Block2 option.
    pub fn block(&mut self, number: u16, block: Block) {
        self.uint(number, block.to_uint());
    }

    /// Appends one option for each value.
    pub fn each<T: AsRef<[u8]>>(&mut self, number: u16, values: &[T]) {
        for value in values {
            self.option(number, value.as_ref());
        }
    }

    /// Appends the payload; an empty one leaves no trace.
    pub fn payload(&mut self, payload: &[u8]) {
        if self.closed {
            self.broken = true;
        } else if !payload.is_empty() {
            self.buf.push(PAYLOAD_MARKER);
            self.buf.extend_from_slice(payload);
            self.closed = true;
        }
    }

    /// Appends options and payload that are encoded already; nothing can follow.
    pub(crate) fn raw(&mut self, tail: &[u8]) {
        self.buf.extend_from_slice(tail);
        self.closed = true;
    }

    /// True when an option came out of order, after the payload, or too long: the message is not what was meant.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Bytes of the message so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.buf.get(self.start..).unwrap_or_default()
    }
}

fn nibble(value: u16) -> (u8, u16) {
    match value {
        0..=12 => (value.to_be_bytes()[1], 0),
        13..=268 => (13, value - 13),
        _ => (14, value - 269),
    }
}
