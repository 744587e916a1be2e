//! `ClientHello`, `HelloVerifyRequest`, `ServerHello` and their extensions.

use crate::alert::Alert;
use crate::suite::Suite;
use crate::wire::{Reader, VERSION, VERSION_1_0, put_u8, put_u16, put_vec8, put_vec16};

/// `TLS_EMPTY_RENEGOTIATION_INFO_SCSV` (RFC 5746 3.3).
pub(crate) const SCSV: u16 = 0x00ff;
/// secp256r1, the only group (RFC 8422 5.1.1).
pub(crate) const SECP256R1: u16 = 23;
/// ecdsa with SHA-256, the only signature algorithm.
pub(crate) const ECDSA_SHA256: u16 = 0x0403;
const MAX_EXTENSIONS: usize = 32;
const MAX_SUITES: usize = 64;

mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    pub(super) const MAX_FRAGMENT_LENGTH: u16 = 1;
    pub(super) const SUPPORTED_GROUPS: u16 = 10;
    pub(super) const EC_POINT_FORMATS: u16 = 11;
    pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(super) const CLIENT_CERTIFICATE_TYPE: u16 = 19;
    pub(super) const SERVER_CERTIFICATE_TYPE: u16 = 20;
    pub(super) const ENCRYPT_THEN_MAC: u16 = 22;
    pub(super) const EXTENDED_MASTER_SECRET: u16 = 23;
    pub(super) const RECORD_SIZE_LIMIT: u16 = 28;
    pub(super) const SESSION_TICKET: u16 = 35;
    pub(super) const CONNECTION_ID: u16 = 54;
    pub(super) const RENEGOTIATION_INFO: u16 = 0xff01;
}

/// Certificate types (RFC 7250).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateType {
    /// A chain.
    X509 = 0,
    /// One `SubjectPublicKeyInfo`.
    RawPublicKey = 2,
}

impl CertificateType {
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::X509),
            2 => Some(Self::RawPublicKey),
            _ => None,
        }
    }
}

/// The extensions that we know, with their contents; `None` is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions<'a> {
    pub(crate) extended_master_secret: bool,
    pub(crate) encrypt_then_mac: bool,
    pub(crate) renegotiation_info: Option<&'a [u8]>,
    /// The ticket; empty asks for one, or promises one.
    pub(crate) session_ticket: Option<&'a [u8]>,
    pub(crate) connection_id: Option<&'a [u8]>,
    pub(crate) max_fragment_length: Option<u8>,
    pub(crate) record_size_limit: Option<u16>,
    pub(crate) server_name: Option<&'a [u8]>,
    /// Lists of 16-bit numbers.
    pub(crate) supported_groups: Option<&'a [u8]>,
    pub(crate) signature_algorithms: Option<&'a [u8]>,
    /// Lists of bytes; of one byte in a `ServerHello`.
    pub(crate) ec_point_formats: Option<&'a [u8]>,
    pub(crate) client_certificate_type: Option<&'a [u8]>,
    pub(crate) server_certificate_type: Option<&'a [u8]>,
    /// One was present that we do not know: an error in a `ServerHello`.
    pub(crate) has_unknown: bool,
}

impl<'a> Extensions<'a> {
    fn parse(mut message: Reader<'a>, from_server: bool) -> Result<Self, Alert> {
        let mut extensions = Self::default();
        if message.is_empty() {
            return Ok(extensions);
        }
        let mut list = Reader(message.vec16()?);
        message.end()?;
        let mut seen = [0_u16; MAX_EXTENSIONS];
        for count in 0.. {
            if list.is_empty() {
                break;
            }
            let kind = list.u16()?;
            let body = Reader(list.vec16()?);
            if seen.iter().take(count).any(|before| *before == kind) {
                return Err(Alert::DecodeError);
            }
            *seen.get_mut(count).ok_or(Alert::DecodeError)? = kind;
            extensions.set(kind, body, from_server)?;
        }
        Ok(extensions)
    }

    fn set(&mut self, kind: u16, mut body: Reader<'a>, from_server: bool) -> Result<(), Alert> {
        let types = |body: &mut Reader<'a>| {
            if from_server {
                body.take(1)
            } else {
                some(body.vec8()?)
            }
        };
        match kind {
            extension::EXTENDED_MASTER_SECRET => self.extended_master_secret = true,
            extension::ENCRYPT_THEN_MAC => self.encrypt_then_mac = true,
            extension::RENEGOTIATION_INFO => self.renegotiation_info = Some(body.vec8()?),
            extension::SESSION_TICKET => {
                self.session_ticket = Some(body.take(body.0.len())?);
            }
            extension::CONNECTION_ID => self.connection_id = Some(body.vec8()?),
            extension::MAX_FRAGMENT_LENGTH => self.max_fragment_length = Some(body.u8()?),
            extension::RECORD_SIZE_LIMIT => self.record_size_limit = Some(body.u16()?),
            extension::SUPPORTED_GROUPS => self.supported_groups = Some(pairs(body.vec16()?)?),
            extension::SIGNATURE_ALGORITHMS => self.signature_algorithms = Some(pairs(body.vec16()?)?),
            extension::EC_POINT_FORMATS => self.ec_point_formats = Some(some(body.vec8()?)?),
            extension::CLIENT_CERTIFICATE_TYPE => self.client_certificate_type = Some(types(&mut body)?),
            extension::SERVER_CERTIFICATE_TYPE => self.server_certificate_type = Some(types(&mut body)?),
            extension::SERVER_NAME if from_server => self.server_name = Some(&[]),
            extension::SERVER_NAME => {
                let mut names = Reader(body.vec16()?);
                // Only host names exist (RFC 6066 3).
                if names.u8()? == 0 {
                    self.server_name = Some(some(names.vec16()?)?);
                    names.end()?;
                }
            }
            _ => {
                self.has_unknown = true;
                return Ok(());
            }
        }
        body.end()
    }

    pub(crate) fn has_group(&self) -> bool {
        let groups = self.supported_groups;
        let points = self.ec_point_formats;
        groups.is_none_or(|groups| contains(groups, SECP256R1))
            && points.is_none_or(|points| points.contains(&0))
    }

    /// A missing list would mean SHA-1, which is not taken (RFC 7925 5).
    pub(crate) fn has_signature_algorithm(&self) -> bool {
        self.signature_algorithms
            .is_some_and(|list| contains(list, ECDSA_SHA256))
    }

    /// Content of records that the sender is able to receive (RFC 6066 4, RFC 8449 4).
    pub(crate) fn limit(&self) -> Result<Option<usize>, Alert> {
        if let Some(limit) = self.record_size_limit {
            return if limit < 64 {
                Err(Alert::IllegalParameter)
            } else {
                Ok(Some(usize::from(limit).min(crate::wire::MAX_CONTENT)))
            };
        }
        match self.max_fragment_length {
            None => Ok(None),
            Some(code @ 1..=4) => Ok(Some(256 << code)),
            Some(_) => Err(Alert::IllegalParameter),
        }
    }
}

fn some(list: &[u8]) -> Result<&[u8], Alert> {
    if list.is_empty() {
        Err(Alert::DecodeError)
    } else {
        Ok(list)
    }
}

/// A list of 16-bit numbers, not empty.
fn pairs(list: &[u8]) -> Result<&[u8], Alert> {
    if list.len().is_multiple_of(2) {
        some(list)
    } else {
        Err(Alert::DecodeError)
    }
}

fn contains(list: &[u8], number: u16) -> bool {
    list.chunks_exact(2).any(|pair| *pair == number.to_be_bytes())
}

/// What precedes the cookie, which the first fragment is enough for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloStart<'a> {
    pub(crate) version: u16,
    pub(crate) random: &'a [u8; 32],
    pub(crate) session_id: &'a [u8],
    pub(crate) cookie: &'a [u8],
}

impl<'a> HelloStart<'a> {
    /// Reads the start of a `ClientHello`'s body.
    ///
    /// # Errors
    /// `decode_error`, or `protocol_version` below DTLS 1.2.
    pub fn parse(body: &'a [u8]) -> Result<Self, Alert> {
        Self::read(&mut Reader(body))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Alert> {
        let version = reader.u16()?;
        if version >> 8 != VERSION >> 8 {
            return Err(Alert::DecodeError);
        }
        // Versions count downwards.
        if version > VERSION {
            return Err(Alert::ProtocolVersion);
        }
        let random = reader.take(32)?.first_chunk().ok_or(Alert::DecodeError)?;
        let session_id = reader.vec8()?;
        let cookie = reader.vec8()?;
        if session_id.len() > 32 {
            return Err(Alert::DecodeError);
        }
        Ok(Self {
            version,
            random,
            session_id,
            cookie,
        })
    }
}

/// A `ClientHello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    pub(crate) start: HelloStart<'a>,
    suites: &'a [u8],
    pub(crate) extensions: Extensions<'a>,
}

impl<'a> ClientHello<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// `decode_error`, `protocol_version`, or `illegal_parameter` without the null compression.
    pub fn parse(body: &'a [u8]) -> Result<Self, Alert> {
        let mut reader = Reader(body);
        let start = HelloStart::read(&mut reader)?;
        let suites = pairs(reader.vec16()?)?;
        let compressions = reader.vec8()?;
        if suites.len() > 2 * MAX_SUITES {
            return Err(Alert::DecodeError);
        }
        if !compressions.contains(&0) {
            return Err(Alert::IllegalParameter);
        }
        Ok(Self {
            start,
            suites,
            extensions: Extensions::parse(reader, false)?,
        })
    }

    pub(crate) fn offers(&self, suite: Suite) -> bool {
        contains(self.suites, suite.code())
    }

    pub(crate) fn has_scsv(&self) -> bool {
        contains(self.suites, SCSV)
    }
}

/// What a client offers.
#[derive(Debug)]
pub(crate) struct Offer<'a> {
    pub(crate) random: &'a [u8; 32],
    pub(crate) session_id: &'a [u8],
    pub(crate) cookie: &'a [u8],
    pub(crate) suites: &'a [Suite],
    pub(crate) session_ticket: Option<&'a [u8]>,
    pub(crate) connection_id: Option<&'a [u8]>,
    pub(crate) max_fragment_length: Option<u8>,
    pub(crate) server_name: Option<&'a str>,
    pub(crate) client_types: &'a [CertificateType],
    pub(crate) server_types: &'a [CertificateType],
}

impl Offer<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        put_u16(&mut out, VERSION.into());
        out.extend_from_slice(self.random);
        put_vec8(&mut out, self.session_id);
        put_vec8(&mut out, self.cookie);
        put_u16(&mut out, 2 * self.suites.len() + 2);
        for suite in self.suites {
            put_u16(&mut out, suite.code().into());
        }
        put_u16(&mut out, SCSV.into());
        put_vec8(&mut out, &[0]);
        let mut list = List::new(&mut out);
        list.put(extension::EXTENDED_MASTER_SECRET, &[]);
        if self.suites.iter().any(|suite| suite.is_cbc()) {
            list.put(extension::ENCRYPT_THEN_MAC, &[]);
        }
        if let Some(ticket) = self.session_ticket {
            list.put(extension::SESSION_TICKET, ticket);
        }
        if let Some(cid) = self.connection_id {
            list.vec8(extension::CONNECTION_ID, cid);
        }
        if let Some(code) = self.max_fragment_length {
            list.put(extension::MAX_FRAGMENT_LENGTH, &[code]);
        }
        if self.suites.iter().any(|suite| suite.key_exchange().has_ecdhe()) {
            list.put(extension::SUPPORTED_GROUPS, &[0, 2, 0, 23]);
            list.vec8(extension::EC_POINT_FORMATS, &[0]);
        }
        if self.suites.iter().any(|suite| !suite.key_exchange().has_psk()) {
            list.put(extension::SIGNATURE_ALGORITHMS, &[0, 2, 4, 3]);
            let x509 = [CertificateType::X509];
            for (kind, types) in [
                (extension::CLIENT_CERTIFICATE_TYPE, self.client_types),
                (extension::SERVER_CERTIFICATE_TYPE, self.server_types),
            ] {
                if types != x509 && !types.is_empty() {
                    let codes: Vec<u8> = types.iter().map(|kind| *kind as u8).collect();
                    list.vec8(kind, &codes);
                }
            }
            if let Some(name) = self.server_name {
                let mut names = vec![];
                put_u16(&mut names, name.len() + 3);
                names.push(0);
                put_vec16(&mut names, name.as_bytes());
                list.put(extension::SERVER_NAME, &names);
            }
        }
        list.finish();
        out
    }
}

/// An extension list being written; its length goes in front at the end.
struct List<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> List<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        put_u16(out, 0);
        Self { out, start }
    }

    fn put(&mut self, kind: u16, body: &[u8]) {
        put_u16(self.out, kind.into());
        put_vec16(self.out, body);
    }

    fn vec8(&mut self, kind: u16, list: &[u8]) {
        put_u16(self.out, kind.into());
        put_u16(self.out, list.len() + 1);
        put_vec8(self.out, list);
    }

    /// An empty list is left out altogether.
    fn finish(self) {
        let length = self.out.len() - self.start - 2;
        if length == 0 {
            self.out.truncate(self.start);
        } else if let Some(to) = self.out.get_mut(self.start..self.start + 2) {
            to.copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
}

/// A `ServerHello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHello<'a> {
    pub(crate) random: &'a [u8; 32],
    pub(crate) session_id: &'a [u8],
    pub(crate) suite: Option<Suite>,
    pub(crate) extensions: Extensions<'a>,
}

impl<'a> ServerHello<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// `decode_error`, `protocol_version`, or `illegal_parameter` for a compression.
    pub fn parse(body: &'a [u8]) -> Result<Self, Alert> {
        let mut reader = Reader(body);
        if reader.u16()? != VERSION {
            return Err(Alert::ProtocolVersion);
        }
        let random = reader.take(32)?.first_chunk().ok_or(Alert::DecodeError)?;
        let session_id = reader.vec8()?;
        if session_id.len() > 32 {
            return Err(Alert::DecodeError);
        }
        let suite = Suite::from_code(reader.u16()?);
        if reader.u8()? != 0 {
            return Err(Alert::IllegalParameter);
        }
        Ok(Self {
            random,
            session_id,
            suite,
            extensions: Extensions::parse(reader, true)?,
        })
    }

    /// Writes a body with the extensions that are set.
    pub(crate) fn encode(&self, suite: Suite) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        put_u16(&mut out, VERSION.into());
        out.extend_from_slice(self.random);
        put_vec8(&mut out, self.session_id);
        put_u16(&mut out, suite.code().into());
        put_u8(&mut out, 0);
        let extensions = &self.extensions;
        let mut list = List::new(&mut out);
        if let Some(info) = extensions.renegotiation_info {
            list.vec8(extension::RENEGOTIATION_INFO, info);
        }
        if extensions.extended_master_secret {
            list.put(extension::EXTENDED_MASTER_SECRET, &[]);
        }
        if extensions.encrypt_then_mac {
            list.put(extension::ENCRYPT_THEN_MAC, &[]);
        }
        if let Some(ticket) = extensions.session_ticket {
            list.put(extension::SESSION_TICKET, ticket);
        }
        if let Some(cid) = extensions.connection_id {
            list.vec8(extension::CONNECTION_ID, cid);
        }
        if let Some(code) = extensions.max_fragment_length {
            list.put(extension::MAX_FRAGMENT_LENGTH, &[code]);
        }
        if let Some(limit) = extensions.record_size_limit {
            list.put(extension::RECORD_SIZE_LIMIT, &limit.to_be_bytes());
        }
        if let Some(formats) = extensions.ec_point_formats {
            list.vec8(extension::EC_POINT_FORMATS, formats);
        }
        if let Some(kind) = extensions.client_certificate_type {
            list.put(extension::CLIENT_CERTIFICATE_TYPE, kind);
        }
        if let Some(kind) = extensions.server_certificate_type {
            list.put(extension::SERVER_CERTIFICATE_TYPE, kind);
        }
        list.finish();
        out
    }
}

/// The cookie of a `HelloVerifyRequest`.
pub(crate) fn parse_hello_verify_request(body: &[u8]) -> Result<&[u8], Alert> {
    let mut reader = Reader(body);
    if !matches!(reader.u16()?, VERSION | VERSION_1_0) {
        return Err(Alert::ProtocolVersion);
    }
    let cookie = some(reader.vec8()?)?;
    reader.end()?;
    Ok(cookie)
}
