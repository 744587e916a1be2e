//! The other handshake messages: certificates and key exchange (RFC 5246 7.4, RFC 8422 5, RFC 4279 2, RFC 7250 3).

use crate::alert::Alert;
use crate::hello::{ECDSA_SHA256, SECP256R1};
use crate::wire::{Reader, put_u8, put_u16, put_vec8, put_vec16, put_vec24, u24};

/// Certificates in one message, the end entity first.
pub(crate) const MAX_CHAIN: usize = 5;
/// Longest identity (RFC 4279 5.3).
pub(crate) const MAX_IDENTITY: usize = 128;
/// An uncompressed point of P-256.
pub(crate) const POINT: usize = 65;
const NAMED_CURVE: u8 = 3;
const ECDSA_SIGN: u8 = 64;

/// A `Certificate` body with an X.509 list.
///
/// # Errors
/// `decode_error`, also above five certificates.
pub fn parse_chain(body: &[u8]) -> Result<Vec<&[u8]>, Alert> {
    let mut reader = Reader(body);
    let mut list = Reader(reader.vec24()?);
    reader.end()?;
    let mut chain = Vec::new();
    while !list.is_empty() {
        let certificate = list.vec24()?;
        if certificate.is_empty() || chain.len() == MAX_CHAIN {
            return Err(Alert::DecodeError);
        }
        chain.push(certificate);
    }
    Ok(chain)
}

pub(crate) fn encode_chain(chain: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&u24(chain.iter().map(|certificate| certificate.len() + 3).sum()));
    for certificate in chain {
        put_vec24(&mut out, certificate);
    }
    out
}

/// A `Certificate` body with one `SubjectPublicKeyInfo`; empty when the sender has none.
///
/// # Errors
/// `decode_error`
pub fn parse_raw_public_key(body: &[u8]) -> Result<&[u8], Alert> {
    let mut reader = Reader(body);
    let key = reader.vec24()?;
    reader.end()?;
    Ok(key)
}

pub(crate) fn encode_raw_public_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_vec24(&mut out, key);
    out
}

/// The server's ephemeral key, signed where the suite has certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcdheParams<'a> {
    /// The bytes that are signed.
    pub(crate) params: &'a [u8],
    pub(crate) point: &'a [u8],
}

impl<'a> EcdheParams<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Alert> {
        let all = reader.0;
        if reader.u8()? != NAMED_CURVE || reader.u16()? != SECP256R1 {
            return Err(Alert::IllegalParameter);
        }
        let point = reader.vec8()?;
        if point.len() != POINT || point.first() != Some(&4) {
            return Err(Alert::IllegalParameter);
        }
        let params = all.get(..4 + POINT).unwrap_or_default();
        Ok(Self { params, point })
    }

    /// Signed parameters of `ECDHE_ECDSA`.
    ///
    /// # Errors
    /// `decode_error`, or `illegal_parameter` for another group, point form or signature algorithm.
    pub fn parse_signed(body: &'a [u8]) -> Result<(Self, &'a [u8]), Alert> {
        let mut reader = Reader(body);
        let params = Self::read(&mut reader)?;
        let signature = read_signature(&mut reader)?;
        Ok((params, signature))
    }

    /// Hint and parameters of `ECDHE_PSK`.
    ///
    /// # Errors
    /// As `parse_signed`.
    pub fn parse_hinted(body: &'a [u8]) -> Result<Self, Alert> {
        let mut reader = Reader(body);
        reader.vec16()?;
        let params = Self::read(&mut reader)?;
        reader.end()?;
        Ok(params)
    }

    pub(crate) fn encode(point: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        put_u8(&mut out, NAMED_CURVE.into());
        put_u16(&mut out, SECP256R1.into());
        put_vec8(&mut out, point);
        out
    }
}

fn read_signature<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Alert> {
    if reader.u16()? != ECDSA_SHA256 {
        return Err(Alert::IllegalParameter);
    }
    let signature = reader.vec16()?;
    reader.end()?;
    Ok(signature)
}

/// Algorithm and signature, as `ServerKeyExchange` ends and as `CertificateVerify` is.
pub(crate) fn put_signature(out: &mut Vec<u8>, signature: &[u8]) {
    put_u16(out, ECDSA_SHA256.into());
    put_vec16(out, signature);
}

/// The signature of a `CertificateVerify`.
///
/// # Errors
/// `decode_error`, or `illegal_parameter` for another algorithm.
pub fn parse_certificate_verify(body: &[u8]) -> Result<&[u8], Alert> {
    read_signature(&mut Reader(body))
}

/// The identity hint of a plain PSK `ServerKeyExchange`, which is of no use to us.
pub(crate) fn parse_hint(body: &[u8]) -> Result<&[u8], Alert> {
    let mut reader = Reader(body);
    let hint = reader.vec16()?;
    reader.end()?;
    Ok(hint)
}

/// `CertificateRequest`: ECDSA keys, SHA-256, any authority.
pub(crate) fn encode_certificate_request() -> Vec<u8> {
    let mut out = Vec::new();
    put_vec8(&mut out, &[ECDSA_SIGN]);
    put_u16(&mut out, 2);
    put_u16(&mut out, ECDSA_SHA256.into());
    put_u16(&mut out, 0);
    out
}

/// A `CertificateRequest` that we are able to answer.
///
/// # Errors
/// `decode_error`, or `handshake_failure` when it does not take ECDSA with SHA-256.
pub fn parse_certificate_request(body: &[u8]) -> Result<(), Alert> {
    let mut reader = Reader(body);
    let types = reader.vec8()?;
    let algorithms = reader.vec16()?;
    reader.vec16()?;
    reader.end()?;
    let wanted = ECDSA_SHA256.to_be_bytes();
    if algorithms.len() % 2 == 1 {
        Err(Alert::DecodeError)
    } else if types.contains(&ECDSA_SIGN) && algorithms.chunks_exact(2).any(|pair| *pair == wanted) {
        Ok(())
    } else {
        Err(Alert::HandshakeFailure)
    }
}

/// Lifetime in seconds (0 where the server does not say) and the ticket, which is empty when there is none after all.
///
/// # Errors
/// `decode_error`
pub fn parse_new_session_ticket(body: &[u8]) -> Result<(u32, &[u8]), Alert> {
    let mut reader = Reader(body);
    let lifetime = u32::from_be_bytes(reader.array()?);
    let ticket = reader.vec16()?;
    reader.end()?;
    Ok((lifetime, ticket))
}

pub(crate) fn encode_new_session_ticket(lifetime: u32, ticket: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(6 + ticket.len());
    out.extend_from_slice(&lifetime.to_be_bytes());
    put_vec16(&mut out, ticket);
    out
}

/// A `ClientKeyExchange`: the identity in PSK suites, the client's point in ECDHE suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKeyExchange<'a> {
    pub(crate) identity: Option<&'a [u8]>,
    pub(crate) point: Option<&'a [u8]>,
}

impl<'a> ClientKeyExchange<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// `decode_error`, or `illegal_parameter` for a point of another form.
    pub fn parse(body: &'a [u8], has_psk: bool, has_ecdhe: bool) -> Result<Self, Alert> {
        let mut reader = Reader(body);
        let identity = if has_psk { Some(reader.vec16()?) } else { None };
        let point = if has_ecdhe { Some(reader.vec8()?) } else { None };
        reader.end()?;
        if identity.is_some_and(|identity| identity.len() > MAX_IDENTITY) {
            return Err(Alert::DecodeError);
        }
        if point.is_some_and(|point| point.len() != POINT || point.first() != Some(&4)) {
            return Err(Alert::IllegalParameter);
        }
        Ok(Self { identity, point })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(identity) = self.identity {
            put_vec16(&mut out, identity);
        }
        if let Some(point) = self.point {
            put_vec8(&mut out, point);
        }
        out
    }
}
