//! Authorities and certificates for tests.

use std::sync::Arc;
use std::time::Duration;

use dtls::{CertifiedKey, Config, SigningKey, Suite, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::psk_config;

/// A certificate and its key.
pub struct Issued {
    pub der: Vec<u8>,
    pub pkcs8: Vec<u8>,
}

impl Issued {
    pub fn key(&self) -> SigningKey {
        SigningKey::from_pkcs8(&self.pkcs8).expect("a P-256 key")
    }

    /// The certificate, what is above it, and its key.
    pub fn certified(&self, above: &[&[u8]]) -> CertifiedKey {
        let mut chain = vec![self.der.clone()];
        chain.extend(above.iter().map(|der| der.to_vec()));
        CertifiedKey::new(chain, self.key()).expect("they belong together")
    }
}

pub struct Authority {
    pub der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = authority_params(name);
        let der = params.self_signed(&key).expect("signed").der().to_vec();
        let issuer = Issuer::new(params, key);
        Self { der, issuer }
    }

    /// An authority below this one.
    pub fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = authority_params(name);
        let der = params
            .signed_by(&key, &self.issuer)
            .expect("signed")
            .der()
            .to_vec();
        let issuer = Issuer::new(params, key);
        Self { der, issuer }
    }

    fn issue(&self, names: &[String], usage: ExtendedKeyUsagePurpose, years: (i32, i32)) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names).expect("names");
        let name = names[0].as_str();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        Issued {
            der: params
                .signed_by(&key, &self.issuer)
                .expect("signed")
                .der()
                .to_vec(),
            pkcs8: key.serialize_der(),
        }
    }

    pub fn client(&self, name: &str) -> Issued {
        self.issue(
            &[name.to_owned()],
            ExtendedKeyUsagePurpose::ClientAuth,
            (2020, 2060),
        )
    }

    pub fn client_with_names(&self, names: &[String]) -> Issued {
        self.issue(names, ExtendedKeyUsagePurpose::ClientAuth, (2020, 2060))
    }

    pub fn expired_client(&self, name: &str) -> Issued {
        self.issue(
            &[name.to_owned()],
            ExtendedKeyUsagePurpose::ClientAuth,
            (2020, 2021),
        )
    }

    pub fn server(&self, name: &str) -> Issued {
        self.issue(
            &[name.to_owned()],
            ExtendedKeyUsagePurpose::ServerAuth,
            (2020, 2060),
        )
    }
}

/// A client's certificate that nobody vouches for; as an authority, as many tools make them, or not.
pub fn self_signed(usage: ExtendedKeyUsagePurpose, until: i32, is_authority: bool) -> Issued {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "dev1");
    params.extended_key_usages = vec![usage];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    if is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    Issued {
        der: params.self_signed(&key).expect("signed").der().to_vec(),
        pkcs8: key.serialize_der(),
    }
}

/// A key without a certificate (PKCS #8).
pub fn raw_key() -> Vec<u8> {
    KeyPair::generate().expect("a key").serialize_der()
}

/// Takes what an authority issues.
pub fn trust(authority: &Authority) -> Arc<Trust> {
    Arc::new(Trust::new(std::slice::from_ref(&authority.der)).expect("a certificate"))
}

/// Settings of client and server with certificates of one authority.
pub fn x509() -> (Config, Config, Authority) {
    let authority = Authority::new("Test CA");
    let base = Config {
        suites: vec![Suite::EcdheEcdsaCcm8],
        trust: trust(&authority),
        initial_timeout: Duration::from_secs(1),
        ..psk_config()
    };
    let client = Config {
        certificate: Some(Arc::new(authority.client("dev1.example").certified(&[]))),
        server_name: Some("server.example".to_owned()),
        ..base.clone()
    };
    let server = Config {
        certificate: Some(Arc::new(authority.server("server.example").certified(&[]))),
        ..base
    };
    (client, server, authority)
}

/// Settings of one side with raw public keys, any of which is taken.
pub fn raw_key_config() -> Config {
    Config {
        suites: vec![Suite::EcdheEcdsaCcm8],
        raw_public_key: SigningKey::from_pkcs8(&raw_key()).map(Arc::new),
        accept_raw_public_keys: true,
        ..psk_config()
    }
}
