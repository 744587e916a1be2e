//! Numbers and vectors of the presentation language (RFC 5246 4), and the constants of both layers.

use crate::alert::Alert;

/// DTLS 1.2.
pub(crate) const VERSION: u16 = 0xfefd;
/// DTLS 1.0, which a first `ClientHello` and a `HelloVerifyRequest` may name.
pub(crate) const VERSION_1_0: u16 = 0xfeff;
/// Content of a record (RFC 6347 4.1).
pub(crate) const MAX_CONTENT: usize = 1 << 14;

/// Content types.
pub(crate) mod content {
    pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(crate) const ALERT: u8 = 21;
    pub(crate) const HANDSHAKE: u8 = 22;
    pub(crate) const APPLICATION_DATA: u8 = 23;
    /// RFC 9146 4.
    pub(crate) const TLS12_CID: u8 = 25;
}

/// Handshake types.
pub mod handshake {
    /// `HelloRequest`
    pub const HELLO_REQUEST: u8 = 0;
    /// `ClientHello`
    pub const CLIENT_HELLO: u8 = 1;
    /// `ServerHello`
    pub const SERVER_HELLO: u8 = 2;
    /// `HelloVerifyRequest`
    pub const HELLO_VERIFY_REQUEST: u8 = 3;
    /// `NewSessionTicket` (RFC 5077 3.3)
    pub const NEW_SESSION_TICKET: u8 = 4;
    /// `Certificate`
    pub const CERTIFICATE: u8 = 11;
    /// `ServerKeyExchange`
    pub const SERVER_KEY_EXCHANGE: u8 = 12;
    /// `CertificateRequest`
    pub const CERTIFICATE_REQUEST: u8 = 13;
    /// `ServerHelloDone`
    pub const SERVER_HELLO_DONE: u8 = 14;
    /// `CertificateVerify`
    pub const CERTIFICATE_VERIFY: u8 = 15;
    /// `ClientKeyExchange`
    pub const CLIENT_KEY_EXCHANGE: u8 = 16;
    /// `Finished`
    pub const FINISHED: u8 = 20;
}

/// Takes numbers and vectors off the front; too few bytes are a `decode_error`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Alert> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Alert::DecodeError)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Alert> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Alert::DecodeError)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Alert> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Alert> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u24(&mut self) -> Result<usize, Alert> {
        self.array()
            .map(|[a, b, c]| usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Alert> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn vec8(&mut self) -> Result<&'a [u8], Alert> {
        let length = self.u8()?;
        self.take(length.into())
    }

    pub(crate) fn vec16(&mut self) -> Result<&'a [u8], Alert> {
        let length = self.u16()?;
        self.take(length.into())
    }

    pub(crate) fn vec24(&mut self) -> Result<&'a [u8], Alert> {
        let length = self.u24()?;
        self.take(length)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), Alert> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Alert::DecodeError)
        }
    }
}

/// The low bytes of a length that is known to fit.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn put_u8(out: &mut Vec<u8>, value: usize) {
    debug_assert!(value < 1 << 8);
    out.push(value as u8);
}

#[allow(clippy::cast_possible_truncation)]
pub(crate) fn put_u16(out: &mut Vec<u8>, value: usize) {
    debug_assert!(value < 1 << 16);
    out.extend_from_slice(&(value as u16).to_be_bytes());
}

#[allow(clippy::cast_possible_truncation)]
pub(crate) fn u24(value: usize) -> [u8; 3] {
    debug_assert!(value < 1 << 24);
    let [_, bytes @ ..] = (value as u32).to_be_bytes();
    bytes
}

pub(crate) fn put_vec8(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u8(out, bytes.len());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_vec16(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u16(out, bytes.len());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_vec24(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u24(bytes.len()));
    out.extend_from_slice(bytes);
}
