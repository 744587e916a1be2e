//! Credentials and settings of DTLS as they come from outside, checked once; an error names the field.

use std::sync::Arc;
use std::time::Duration;

use dtls::certificate::{Trust, Usage};
use dtls::{CertifiedKey, Config, ConnectionIds, PreSharedKey, SealingKey, Secret, SigningKey, Suite};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::settings::{Checked, SettingError};

/// Age at which a handshake is given up at the latest.
const MAX_LIFETIME: Duration = Duration::from_secs(120);

/// Raw settings; [`Security::check`] makes sense of them.
#[derive(Clone)]
#[allow(clippy::struct_excessive_bools)]
pub struct Security {
    /// Our chain (PEM), the end entity first.
    pub certificate: Option<Vec<u8>>,
    /// Its key and our raw public key: PKCS #8 (PEM) of P-256.
    pub private_key: Option<Zeroizing<Vec<u8>>>,
    /// Shows the raw public key to who asks for it.
    pub offer_raw_public_key: bool,
    /// Listeners: takes raw public keys of devices.
    pub accept_raw_public_keys: bool,
    /// Listeners: asks about certificates without a path to an authority, too.
    pub accept_pinned_certificates: bool,
    /// Authorities (DER) of the other side's certificates.
    pub trust: Vec<Vec<u8>>,
    /// Client role: identity and key.
    pub psk: Option<(Vec<u8>, Secret)>,
    /// Client role: the `SubjectPublicKeyInfo` (DER) that a server must show.
    pub server_public_key: Option<Vec<u8>>,
    /// Client role: asked for, and looked for in the server's certificate.
    pub server_name: Option<String>,
    /// Client role: what `server_certificate` means (`LwM2M` Core, /0/*/15).
    pub certificate_usage: i64,
    /// Client role: an authority's or the server's (DER).
    pub server_certificate: Option<Vec<u8>>,
    /// Registered names of the suites that are negotiated, the preferred one first.
    pub suites: Vec<String>,
    /// Length of the connection ids that we give out; None for none at all.
    pub connection_id_length: Option<i64>,
    /// Their first byte.
    pub node: Option<i64>,
    /// Seconds until a flight is sent again.
    pub handshake_timeout: f64,
    /// What exports are sealed with; without it there are none.
    pub sealing_key: Option<Zeroizing<Vec<u8>>>,
    /// Reports the secrets of all sessions.
    pub key_log: bool,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            certificate: None,
            private_key: None,
            offer_raw_public_key: true,
            accept_raw_public_keys: true,
            accept_pinned_certificates: true,
            trust: Vec::new(),
            psk: None,
            server_public_key: None,
            server_name: None,
            certificate_usage: 3,
            server_certificate: None,
            suites: default_suites(),
            connection_id_length: Some(8),
            node: None,
            handshake_timeout: 9.0,
            sealing_key: None,
            key_log: false,
        }
    }
}

/// What both roles work with.
#[derive(Clone)]
pub struct Secured {
    /// Of listeners.
    pub server: Arc<Config>,
    /// Of our client role.
    pub client: Arc<Config>,
    /// The raw public key that servers must show.
    pub server_public_key: Option<Arc<[u8]>>,
    /// What exports are sealed with.
    pub sealing_key: Option<SealingKey>,
}

impl Secured {
    /// Length of the connection ids that we give out; None for none at all.
    pub fn cid_length(&self) -> Option<usize> {
        self.server.connection_ids.map(|ids| ids.length)
    }
}

/// Those that authenticate as they encrypt.
#[must_use]
pub fn default_suites() -> Vec<String> {
    let suites = Config::default().suites;
    suites.iter().map(|suite| suite.as_str().to_owned()).collect()
}

fn wrong(name: &'static str, rule: &str) -> SettingError {
    SettingError {
        name,
        rule: rule.to_owned(),
    }
}

impl Security {
    /// Checks every field.
    ///
    /// # Errors
    /// [`SettingError`] for the first one that cannot be used.
    pub fn check(&self, settings: &Checked) -> Result<Secured, SettingError> {
        let certificate = self.chain()?;
        let raw_public_key = if self.offer_raw_public_key {
            self.signing_key()?.map(Arc::new)
        } else {
            None
        };
        let authorities = Trust::new(&self.trust)
            .ok_or_else(|| wrong("trust", "a sequence of certificates of authorities in DER"))?;
        let sealing_key = match &self.sealing_key {
            None => None,
            Some(key) => Some(SealingKey::new(
                key.as_slice()
                    .try_into()
                    .map_err(|_| wrong("sealing_key", "32 bytes"))?,
            )),
        };
        let initial_timeout = self.timeout()?;
        let common = Config {
            suites: self.chosen_suites()?,
            certificate,
            raw_public_key,
            connection_ids: self.connection_ids()?,
            initial_timeout,
            // As long as the resends of one flight take, and not for ever.
            handshake_lifetime: (initial_timeout * (2 << settings.dtls.max_resends)).min(MAX_LIFETIME),
            key_log: self.key_log,
            ..settings.dtls.clone()
        };
        let server = Config {
            trust: Arc::new(authorities),
            accept_raw_public_keys: self.accept_raw_public_keys,
            accept_pinned_certificates: self.accept_pinned_certificates,
            ..common.clone()
        };
        // A device that has a certificate means that one, not the bare key in it.
        let raw_public_key = common.raw_public_key.clone();
        let client = Config {
            raw_public_key: raw_public_key.filter(|_| common.certificate.is_none()),
            trust: Arc::new(self.trust_in_server()?),
            accept_raw_public_keys: self.server_public_key.is_some(),
            psk: self.pre_shared_key()?,
            server_name: self.server_name.clone(),
            ..common
        };
        Ok(Secured {
            server: Arc::new(server),
            client: Arc::new(client),
            server_public_key: self.server_public_key.as_deref().map(Arc::from),
            sealing_key,
        })
    }

    fn chosen_suites(&self) -> Result<Vec<Suite>, SettingError> {
        let known = || {
            let names: Vec<_> = Suite::ALL.iter().map(|suite| suite.as_str()).collect();
            names.join(", ")
        };
        if self.suites.is_empty() {
            return Err(wrong("suites", &format!("one or more of {}", known())));
        }
        let chosen = self.suites.iter().map(|name| {
            Suite::from_name(name).ok_or_else(|| wrong("suites", &format!("of {}, not {name:?}", known())))
        });
        chosen.collect()
    }

    fn signing_key(&self) -> Result<Option<SigningKey>, SettingError> {
        let Some(pem) = &self.private_key else {
            return Ok(None);
        };
        let rule = || wrong("private_key", "an unencrypted PKCS #8 key of P-256 in PEM");
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| rule())?;
        SigningKey::from_pkcs8(der.secret_pkcs8_der())
            .map(Some)
            .ok_or_else(rule)
    }

    fn chain(&self) -> Result<Option<Arc<CertifiedKey>>, SettingError> {
        let Some(pem) = &self.certificate else {
            return Ok(None);
        };
        let key = self
            .signing_key()?
            .ok_or_else(|| wrong("private_key", "given with a certificate"))?;
        let chain = CertificateDer::pem_slice_iter(pem)
            .map(|der| der.map(|der| der.to_vec()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| wrong("certificate", "a chain of certificates in PEM"))?;
        let certified = CertifiedKey::new(chain, key).ok_or_else(|| {
            wrong(
                "certificate",
                "a chain of one to five certificates in PEM, the first one with the private key's public half",
            )
        })?;
        Ok(Some(Arc::new(certified)))
    }

    fn trust_in_server(&self) -> Result<Trust, SettingError> {
        let usage = match self.certificate_usage {
            0 => Usage::CaConstraint,
            1 => Usage::ServiceCertificateConstraint,
            2 => Usage::TrustAnchorAssertion,
            3 => Usage::DomainIssuedCertificate,
            _ => return Err(wrong("certificate_usage", "0, 1, 2 or 3")),
        };
        let trust = match &self.server_certificate {
            None => Trust::new(&self.trust),
            Some(certificate) => Trust::pinned(usage, certificate.clone(), &self.trust),
        };
        trust.ok_or_else(|| wrong("server_certificate", "a certificate in DER"))
    }

    fn pre_shared_key(&self) -> Result<Option<PreSharedKey>, SettingError> {
        let Some((identity, key)) = &self.psk else {
            return Ok(None);
        };
        if identity.len() > 128 || key.is_empty() {
            return Err(wrong("psk", "an identity of at most 128 bytes and a key"));
        }
        Ok(Some(PreSharedKey {
            identity: identity.clone(),
            key: key.clone(),
        }))
    }

    fn connection_ids(&self) -> Result<Option<ConnectionIds>, SettingError> {
        let most = i64::try_from(dtls::MAX_CID).unwrap_or(i64::MAX);
        let Some(length) = self.connection_id_length else {
            return Ok(None);
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length == 0 || (4..=dtls::MAX_CID).contains(length))
            .ok_or_else(|| wrong("connection_id_length", &format!("0, or between 4 and {most}")))?;
        let node = self
            .node
            .map(u8::try_from)
            .transpose()
            .map_err(|_| wrong("node", "between 0 and 255"))?;
        Ok(Some(ConnectionIds { length, node }))
    }

    fn timeout(&self) -> Result<Duration, SettingError> {
        if (0.01..=60.0).contains(&self.handshake_timeout) {
            Ok(Duration::from_secs_f64(self.handshake_timeout))
        } else {
            let rule = format!("between 0.01 and 60 seconds, not {}", self.handshake_timeout);
            Err(wrong("handshake_timeout", &rule))
        }
    }
}
