//! What the tests share: a seeded generator, a handler that records, and a link between a client and a server.

#![allow(dead_code)]

pub mod network;
pub mod pki;
pub mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use dtls::{
    Answer, Association, AssociationId, Config, Handler, Identity, PreSharedKey, PskKeys, Random, Secret,
    Suite,
};

pub const IDENTITY: &[u8] = b"dev1";
pub const KEY: &[u8] = b"0123456789abcdef";

/// `SplitMix64`.
#[derive(Clone, Debug)]
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Uniform in 0..bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        true
    }
}

/// Knows keys and peers, and keeps what arrives.
#[derive(Debug, Default)]
pub struct Keeper {
    pub keys: HashMap<Vec<u8>, Vec<u8>>,
    /// Keys before those.
    pub former: HashMap<Vec<u8>, Vec<u8>>,
    /// Fingerprints of certificates and raw public keys that are taken.
    pub peers: Vec<[u8; 32]>,
    /// Certificates that are taken without a path.
    pub pinned: Vec<Vec<u8>>,
    pub later: bool,
    pub time: u64,
    pub received: Vec<(AssociationId, Vec<u8>)>,
    pub fresh: Vec<bool>,
    pub masters: Vec<[u8; 48]>,
}

impl Keeper {
    pub fn new() -> Self {
        Self {
            keys: HashMap::from([(IDENTITY.to_vec(), KEY.to_vec())]),
            time: 1_800_000_000,
            ..Self::default()
        }
    }

    pub fn payloads(&self) -> Vec<&[u8]> {
        self.received
            .iter()
            .map(|(_, payload)| payload.as_slice())
            .collect()
    }
}

impl Handler for Keeper {
    fn psk(&mut self, identity: &[u8]) -> Answer<PskKeys> {
        if self.later {
            return Answer::Later;
        }
        match self.keys.get(identity) {
            Some(key) => Answer::Known(PskKeys {
                current: Secret::new(key.clone()),
                former: self.former.get(identity).map(|key| Secret::new(key.clone())),
            }),
            None => Answer::Unknown,
        }
    }

    fn peer(&mut self, identity: &Identity, _der: &[u8]) -> Answer<()> {
        if self.later {
            return Answer::Later;
        }
        let known = match identity {
            Identity::Psk(_) => false,
            Identity::RawPublicKey(fingerprint) | Identity::Certificate { fingerprint, .. } => {
                self.peers.is_empty() || self.peers.contains(fingerprint)
            }
        };
        if known { Answer::Known(()) } else { Answer::Unknown }
    }

    fn unverified(&mut self, _identity: &Identity, der: &[u8]) -> Answer<()> {
        if self.later {
            Answer::Later
        } else if self.pinned.iter().any(|pinned| pinned == der) {
            Answer::Known(())
        } else {
            Answer::Unknown
        }
    }

    fn unix_time(&mut self) -> u64 {
        self.time
    }

    fn datagram(&mut self, from: &Association<'_>, payload: &[u8]) {
        self.received.push((from.id, payload.to_vec()));
        self.fresh.push(from.fresh);
    }

    fn key_log(&mut self, _client_random: &[u8; 32], master: &[u8; 48]) {
        self.masters.push(*master);
    }
}

/// Settings for PSK in both roles.
pub fn psk_config() -> Config {
    Config {
        suites: vec![Suite::PskCcm8],
        psk: Some(PreSharedKey {
            identity: IDENTITY.to_vec(),
            key: Secret::new(KEY.to_vec()),
        }),
        key_log: true,
        ..Config::default()
    }
}

pub fn arc(config: &Config) -> Arc<Config> {
    Arc::new(config.clone())
}
