//! Certificates and raw public keys of peers: paths (RFC 5280 by webpki), names, signatures.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, RawPublicKeyEntity, VerifiedPath, ring::ECDSA_P256_SHA256};

use crate::alert::{Alert, Failure};
use crate::event::{Identity, Role};
use crate::prf::sha256;

/// Names of a certificate that an identity carries.
const MAX_NAMES: usize = 8;
/// Longest name.
const MAX_NAME: usize = 255;

/// How [`Trust`] uses its pinned certificate: the certificate usages of LwM2M (RFC 6698 2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// 0: a path to an anchor that goes through this authority.
    CaConstraint,
    /// 1: a path to an anchor, and the end entity is this certificate.
    ServiceCertificateConstraint,
    /// 2: a path to this authority and to no other.
    TrustAnchorAssertion,
    /// 3: the end entity is this certificate; no path is looked for.
    DomainIssuedCertificate,
}

/// Whose certificates are taken.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    pin: Option<(Usage, Vec<u8>)>,
}

fn anchor(der: &[u8]) -> Option<TrustAnchor<'static>> {
    let certificate = CertificateDer::from(der);
    let anchor = webpki::anchor_from_trusted_cert(&certificate).ok()?;
    Some(anchor.to_owned())
}

impl Trust {
    /// Trusts these authorities (DER); `None` when one cannot be read.
    #[must_use]
    pub fn new(authorities: &[Vec<u8>]) -> Option<Self> {
        let anchors = authorities.iter().map(|der| anchor(der)).collect::<Option<_>>()?;
        Some(Self { anchors, pin: None })
    }

    /// Trusts by a certificate usage; the authorities matter for the first two. `None` when a certificate cannot be
    /// read.
    #[must_use]
    pub fn pinned(usage: Usage, certificate: Vec<u8>, authorities: &[Vec<u8>]) -> Option<Self> {
        let mut trust = Self::new(authorities)?;
        if usage == Usage::TrustAnchorAssertion {
            trust.anchors = vec![anchor(&certificate)?];
        }
        trust.pin = Some((usage, certificate));
        Some(trust)
    }

    /// Some certificate may be taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty() && self.pin.is_none()
    }

    /// Checks the chain of a peer in this role, the end entity first.
    ///
    /// # Errors
    /// What the peer and the operator are told.
    pub fn verify(
        &self,
        chain: &[&[u8]],
        unix_time: u64,
        role: Role,
        name: Option<&str>,
    ) -> Result<Identity, Failure> {
        let (end_entity, rest) = chain
            .split_first()
            .ok_or(Failure::new(Alert::HandshakeFailure, "no-certificate"))?;
        let der = CertificateDer::from(*end_entity);
        let certificate = EndEntityCert::try_from(&der).map_err(|error| refusal(&error))?;
        let pinned = |usages: &[Usage]| {
            self.pin
                .as_ref()
                .filter(|(usage, _)| usages.contains(usage))
                .map(|(_, pin)| pin.as_slice())
        };
        let exact = [
            Usage::ServiceCertificateConstraint,
            Usage::DomainIssuedCertificate,
        ];
        if pinned(&exact).is_some_and(|pin| pin != *end_entity) {
            return Err(Failure::new(Alert::BadCertificate, "foreign-certificate"));
        }
        if pinned(&[Usage::DomainIssuedCertificate]).is_none() {
            let intermediates: Vec<_> = rest.iter().map(|der| CertificateDer::from(*der)).collect();
            let path = self
                .path(&certificate, &intermediates, unix_time, role)
                .map_err(|error| refusal(&error))?;
            if let Some(pin) = pinned(&[Usage::CaConstraint]) {
                let is_anchor = anchor(pin).is_some_and(|pin| pin == *path.anchor());
                let mut between = path.intermediate_certificates();
                if !is_anchor && !between.any(|certificate| certificate.der().as_ref() == pin) {
                    return Err(Failure::new(Alert::UnknownCa, "foreign-authority"));
                }
            }
            if let Some(name) = name {
                let name = ServerName::try_from(name).map_err(|_| Alert::InternalError)?;
                certificate
                    .verify_is_valid_for_subject_name(&name)
                    .map_err(|error| refusal(&error))?;
            }
        }
        Ok(identity(&certificate))
    }

    /// Checks the chain of a client, and says whether it leads to an authority. Where `is_alone_enough`, nothing but
    /// that path may be missing: dates and use of the end entity are checked all the same.
    ///
    /// # Errors
    /// What the peer and the operator are told.
    pub fn verify_client(
        &self,
        chain: &[&[u8]],
        unix_time: u64,
        is_alone_enough: bool,
    ) -> Result<(Identity, bool), Failure> {
        let Some((end_entity, rest)) = chain
            .split_first()
            .filter(|_| is_alone_enough && self.pin.is_none())
        else {
            return Ok((self.verify(chain, unix_time, Role::Client, None)?, true));
        };
        let der = CertificateDer::from(*end_entity);
        let certificate = EndEntityCert::try_from(&der).map_err(|error| refusal(&error))?;
        let intermediates: Vec<_> = rest.iter().map(|der| CertificateDer::from(*der)).collect();
        let verified = match self.path(&certificate, &intermediates, unix_time, Role::Client) {
            Ok(_) => true,
            // Dates and use of the end entity come before the search for its issuer.
            Err(Error::UnknownIssuer) => false,
            // Many self-signed ones are made as if they were authorities. The use comes after this.
            Err(Error::CaUsedAsEndEntity) if is_for_clients(end_entity) => false,
            Err(error) => return Err(refusal(&error)),
        };
        Ok((identity(&certificate), verified))
    }

    fn path<'a>(
        &'a self,
        certificate: &'a EndEntityCert<'a>,
        intermediates: &'a [CertificateDer<'a>],
        unix_time: u64,
        role: Role,
    ) -> Result<VerifiedPath<'a>, Error> {
        certificate.verify_for_usage(
            &[
                ECDSA_P256_SHA256,
                webpki::ring::ECDSA_P256_SHA384,
                webpki::ring::ECDSA_P384_SHA384,
            ],
            &self.anchors,
            intermediates,
            UnixTime::since_unix_epoch(Duration::from_secs(unix_time)),
            match role {
                Role::Client => KeyUsage::client_auth(),
                Role::Server => KeyUsage::server_auth(),
            },
            None,
            None,
        )
    }
}

fn identity(certificate: &EndEntityCert<'_>) -> Identity {
    let common_name = common_name(certificate.subject()).unwrap_or_default();
    let alternatives = certificate.valid_dns_names().chain(certificate.valid_uri_names());
    let names = std::iter::once(common_name)
        .chain(alternatives)
        .map(|name| if name.len() > MAX_NAME { "" } else { name })
        .take(MAX_NAMES)
        .map(Box::from)
        .collect();
    Identity::Certificate {
        fingerprint: sha256(&certificate.der()),
        names,
    }
}

pub(crate) const fn unknown_authority() -> Failure {
    Failure::new(Alert::UnknownCa, "unknown-authority")
}

fn refusal(error: &webpki::Error) -> Failure {
    match error {
        Error::CertExpired { .. } => Failure::new(Alert::CertificateExpired, "certificate-expired"),
        Error::CertNotValidYet { .. } => Failure::new(Alert::CertificateExpired, "certificate-not-yet-valid"),
        Error::UnknownIssuer => unknown_authority(),
        Error::CertNotValidForName(_) => Failure::new(Alert::BadCertificate, "certificate-for-another-name"),
        Error::RequiredEkuNotFoundContext(_) => {
            Failure::new(Alert::UnsupportedCertificate, "certificate-for-another-use")
        }
        _ => Failure::new(Alert::BadCertificate, "bad-certificate"),
    }
}

/// One DER element: its tag, its contents, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest
            .split_first()
            .map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest
            .split_first_chunk()
            .map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// The first common name of a subject (RFC 5280 4.1.2.4), given as the contents of its sequence.
fn common_name(mut subject: &[u8]) -> Option<&str> {
    const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    while let Some((_, mut set, rest)) = element(subject) {
        subject = rest;
        while let Some((_, pair, rest)) = element(set) {
            set = rest;
            let (_, kind, value) = element(pair)?;
            if kind == COMMON_NAME {
                let (tag, text, _) = element(value)?;
                // UTF8String or PrintableString.
                return matches!(tag, 0x0c | 0x13)
                    .then(|| std::str::from_utf8(text).ok())
                    .flatten();
            }
        }
    }
    None
}

/// How long every certificate of a chain that is valid now stays so; zero when that cannot be told.
pub(crate) fn valid_for(chain: &[&[u8]], unix_time: u64) -> Duration {
    let ends = chain.iter().map(|der| not_after(der).unwrap_or_default());
    Duration::from_secs(ends.min().unwrap_or_default().saturating_sub(unix_time))
}

/// What a certificate says of its use, if anything, includes clients (RFC 5280 4.2.1.12).
fn is_for_clients(der: &[u8]) -> bool {
    const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 29, 37];
    const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
    let Some(mut extensions) = extensions(der) else {
        return true;
    };
    while let Some((_, extension, rest)) = element(extensions) {
        extensions = rest;
        let Some((_, EXTENDED_KEY_USAGE, mut rest)) = element(extension) else {
            continue;
        };
        // Past the mark of a critical one.
        while let Some((tag, value, next)) = element(rest) {
            rest = next;
            if tag == 4 {
                let mut uses = element(value).map_or(value, |(_, uses, _)| uses);
                while let Some((_, purpose, rest)) = element(uses) {
                    if purpose == CLIENT_AUTH {
                        return true;
                    }
                    uses = rest;
                }
            }
        }
        return false;
    }
    extensions.is_empty()
}

/// The extensions of a certificate (RFC 5280 4.1.2.9).
fn extensions(der: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(der)?;
    let (_, mut fields, _) = element(certificate)?;
    while let Some((tag, contents, rest)) = element(fields) {
        if tag == 0xa3 {
            return element(contents).map(|(_, extensions, _)| extensions);
        }
        fields = rest;
    }
    None
}

/// The end of a certificate's validity, in seconds since 1970 (RFC 5280 4.1.2.5).
fn not_after(der: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(der)?;
    let (_, mut fields, _) = element(certificate)?;
    // Version, serial number, signature algorithm, issuer.
    if element(fields)?.0 == 0xa0 {
        fields = element(fields)?.2;
    }
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (tag, text, _) = element(element(validity)?.2)?;
    let digits = text.strip_suffix(b"Z")?;
    let mut pairs = digits.as_chunks::<2>().0.iter().map(|[tens, ones]| {
        let digit = |byte: &u8| char::from(*byte).to_digit(10).map(u64::from);
        Some(digit(tens)? * 10 + digit(ones)?)
    });
    let mut next = || pairs.next()?;
    let year = match tag {
        // Two digits stand for 1950 to 2049.
        0x17 => next().map(|year| if year < 50 { 2000 + year } else { 1900 + year })?,
        0x18 => next()? * 100 + next()?,
        _ => return None,
    };
    let (month, day) = (next()?, next()?);
    let seconds = next()? * 3600 + next()? * 60 + next()?;
    // Days from 1 March of the year 0 on, as the leap day ends such a year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    Some(days.checked_sub(719_469)? * 86_400 + seconds)
}

/// The key that a peer signs with.
#[derive(Clone, Debug)]
pub(crate) enum PeerKey {
    Certificate(Vec<u8>),
    RawPublicKey(Vec<u8>),
}

impl PeerKey {
    /// A raw public key of P-256.
    pub(crate) fn raw(spki: &[u8]) -> Result<Self, Failure> {
        let der = SubjectPublicKeyInfoDer::from(spki);
        RawPublicKeyEntity::try_from(&der)
            .map(|_| Self::RawPublicKey(spki.to_vec()))
            .map_err(|error| refusal(&error))
    }

    pub(crate) fn der(&self) -> &[u8] {
        match self {
            Self::Certificate(der) | Self::RawPublicKey(der) => der,
        }
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Failure> {
        let verified = match self {
            Self::Certificate(der) => {
                let der = CertificateDer::from(der.as_slice());
                EndEntityCert::try_from(&der)
                    .and_then(|key| key.verify_signature(ECDSA_P256_SHA256, message, signature))
            }
            Self::RawPublicKey(der) => {
                let der = SubjectPublicKeyInfoDer::from(der.as_slice());
                RawPublicKeyEntity::try_from(&der)
                    .and_then(|key| key.verify_signature(ECDSA_P256_SHA256, message, signature))
            }
        };
        verified.map_err(|_| Failure::new(Alert::DecryptError, "bad-signature"))
    }
}
