//! Who the simulated devices are: credentials of each, and what they believe of the server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dtls::{
    Answer, Association, CertifiedKey, Config, ConnectionIds, Handler, Identity, PreSharedKey, PskKeys,
    Secret, SigningKey, Trust,
};
use ring::hmac;

/// Bytes of a derived pre-shared key.
const KEY: usize = 16;
/// Bytes of the connection ids of devices that share a source.
const SHARED_ID: usize = 8;

/// What the devices prove themselves with.
pub enum Credentials {
    /// The identity is the endpoint name, the key the first 16 bytes of HMAC-SHA256 of that name under this secret.
    Psk(Secret),
    /// A P-256 key (PKCS #8, DER) for each device in their order, and the server's `SubjectPublicKeyInfo`.
    RawPublicKeys {
        /// Keys of the devices.
        keys: Vec<Secret>,
        /// The one key that is taken of a server.
        server: Vec<u8>,
    },
    /// A certificate chain (DER, the end entity first) with its key for each device in their order.
    Certificates {
        /// Chains and keys of the devices.
        devices: Vec<(Vec<Vec<u8>>, Secret)>,
        /// Whose certificates are taken of a server.
        trust: Trust,
        /// The name that must stand in the server's certificate.
        server_name: Option<String>,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Psk(_) => "Psk",
            Self::RawPublicKeys { .. } => "RawPublicKeys",
            Self::Certificates { .. } => "Certificates",
        })
    }
}

impl Credentials {
    /// Pre-shared keys that are derived from this secret.
    #[must_use]
    pub fn psk(secret: Vec<u8>) -> Self {
        Self::Psk(Secret::new(secret))
    }

    /// Raw public keys; PKCS #8 of each device, and the server's `SubjectPublicKeyInfo` (DER).
    #[must_use]
    pub fn raw_public_keys(keys: Vec<Vec<u8>>, server: Vec<u8>) -> Self {
        let keys = keys.into_iter().map(Secret::new).collect();
        Self::RawPublicKeys { keys, server }
    }

    /// Certificates; chain and PKCS #8 of each device, and the authorities of the server (DER). `None` when one of
    /// these can't be read.
    #[must_use]
    pub fn certificates(
        devices: Vec<(Vec<Vec<u8>>, Vec<u8>)>,
        trust: &[Vec<u8>],
        server_name: Option<String>,
    ) -> Option<Self> {
        let devices = devices.into_iter();
        Some(Self::Certificates {
            devices: devices.map(|(chain, key)| (chain, Secret::new(key))).collect(),
            trust: Trust::new(trust)?,
            server_name,
        })
    }
}

/// How the devices secure their traffic.
#[derive(Debug)]
pub struct Security {
    /// What they prove themselves with.
    pub credentials: Credentials,
    /// They take a connection id from the server and send with it (RFC 9146).
    pub connection_ids: bool,
    /// First wait for an answer to a flight; of each device up to half longer.
    pub handshake_timeout: Duration,
}

/// The key of a device: the first 16 bytes of HMAC-SHA256(secret, endpoint).
pub fn derived_key(secret: &[u8], endpoint: &str) -> Secret {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, endpoint.as_bytes());
    Secret::new(tag.as_ref().iter().copied().take(KEY).collect())
}

/// A number below 1024 for each device, the same each time: devices are not in step, and what many of them send again
/// doesn't come at one moment.
fn spread(number: usize) -> u32 {
    u32::try_from(number)
        .unwrap_or_default()
        .wrapping_mul(0x9e37_79b9)
        >> 22
}

impl Security {
    /// Devices that have credentials; `None` when there is no end to them.
    pub(crate) fn capacity(&self) -> Option<usize> {
        match &self.credentials {
            Credentials::Psk(_) => None,
            Credentials::RawPublicKeys { keys, .. } => Some(keys.len()),
            Credentials::Certificates { devices, .. } => Some(devices.len()),
        }
    }

    /// Settings without credentials. Devices that share a source are told apart by connection ids of their own, one
    /// that has its source for itself asks for none.
    pub(crate) fn idle(&self, is_shared: bool) -> Config {
        Config {
            connection_ids: self.connection_ids.then_some(ConnectionIds {
                length: if is_shared { SHARED_ID } else { 0 },
                node: None,
            }),
            initial_timeout: self.handshake_timeout,
            // Credentials are held for a handshake only, and tickets would go with them.
            ticket_lifetime: None,
            ..Config::default()
        }
    }

    /// Settings of one device for its handshake; `None` when its key can't be used.
    pub(crate) fn config(&self, idle: &Config, number: usize, endpoint: &str) -> Option<Config> {
        let mut config = idle.clone();
        config.initial_timeout += config.initial_timeout * spread(number) / 2048;
        match &self.credentials {
            Credentials::Psk(secret) => {
                config.psk = Some(PreSharedKey {
                    identity: endpoint.as_bytes().to_vec(),
                    key: derived_key(secret, endpoint),
                });
            }
            Credentials::RawPublicKeys { keys, .. } => {
                let key = SigningKey::from_pkcs8(keys.get(number)?)?;
                config.raw_public_key = Some(Arc::new(key));
                config.accept_raw_public_keys = true;
            }
            Credentials::Certificates {
                devices,
                trust,
                server_name,
            } => {
                let (chain, key) = devices.get(number)?;
                let certified = CertifiedKey::new(chain.clone(), SigningKey::from_pkcs8(key)?)?;
                config.certificate = Some(Arc::new(certified));
                config.trust = Arc::new(trust.clone());
                config.server_name.clone_from(server_name);
            }
        }
        Some(config)
    }

    fn knows(&self, der: &[u8]) -> bool {
        match &self.credentials {
            Credentials::Psk(_) => false,
            Credentials::RawPublicKeys { server, .. } => server == der,
            // The path has been checked.
            Credentials::Certificates { .. } => true,
        }
    }
}

/// Answers the questions of a handshake and keeps what arrives.
pub(crate) struct Keeper<'a> {
    security: &'a Security,
    pub(crate) received: Vec<Vec<u8>>,
}

impl<'a> Keeper<'a> {
    pub(crate) const fn new(security: &'a Security) -> Self {
        Self {
            security,
            received: Vec::new(),
        }
    }
}

impl Handler for Keeper<'_> {
    fn psk(&mut self, _: &[u8]) -> Answer<PskKeys> {
        Answer::Unknown
    }

    fn peer(&mut self, _: &Identity, der: &[u8]) -> Answer<()> {
        if self.security.knows(der) {
            Answer::Known(())
        } else {
            Answer::Unknown
        }
    }

    fn unix_time(&mut self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |age| age.as_secs())
    }

    fn datagram(&mut self, _: &Association<'_>, payload: &[u8]) {
        self.received.push(payload.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_waits_of_devices_spread_evenly() {
        let early = (0..10_000).filter(|number| spread(*number) < 512).count();
        assert!((0..10_000).all(|number| spread(number) < 1024));
        assert!((4_900..=5_100).contains(&early), "{early}");
    }

    #[test]
    fn a_derived_key_is_the_beginning_of_an_hmac_as_other_programs_compute_it() {
        // printf sim-000000 | openssl dgst -sha256 -hmac secret
        let expected = [
            0xae, 0xa3, 0x6a, 0xc7, 0x77, 0x13, 0xb9, 0x3f, 0x00, 0x23, 0xcd, 0xae, 0x57, 0x77, 0xe2, 0x7b,
        ];
        assert_eq!(derived_key(b"secret", "sim-000000").as_slice(), expected);
    }
}
