//! P-256: signing keys and ephemeral key agreement.

use std::fmt;

use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::message::POINT;

/// `SubjectPublicKeyInfo` of a P-256 key up to its point (RFC 5480).
const SPKI_START: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A P-256 key to sign with.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    spki: Vec<u8>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

impl SigningKey {
    /// The key of a PKCS #8 document (DER); `None` when it is none of P-256.
    #[must_use]
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random).ok()?;
        let mut spki = SPKI_START.to_vec();
        spki.extend_from_slice(pair.public_key().as_ref());
        Some(Self { pair, spki })
    }

    /// A new key as PKCS #8 (DER); `None` when the system's generator fails.
    #[must_use]
    pub fn generate_pkcs8() -> Option<Zeroizing<Vec<u8>>> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).ok()?;
        Some(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// Its public half as `SubjectPublicKeyInfo` (DER).
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.spki
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let signature = self.pair.sign(&SystemRandom::new(), message).ok()?;
        Some(signature.as_ref().to_vec())
    }
}

/// A certificate chain (DER), the end entity first, and its key.
#[derive(Debug)]
pub struct CertifiedKey {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: SigningKey,
}

impl CertifiedKey {
    /// A chain and the key of its first certificate; `None` when they don't belong together or the chain is empty
    /// or longer than five.
    #[must_use]
    pub fn new(chain: Vec<Vec<u8>>, key: SigningKey) -> Option<Self> {
        let end_entity = chain.first()?.as_slice().into();
        let certificate = webpki::EndEntityCert::try_from(&end_entity).ok()?;
        let matches = certificate.subject_public_key_info().as_ref() == key.public_key();
        (matches && chain.len() <= crate::message::MAX_CHAIN).then_some(Self { chain, key })
    }
}

/// A key pair for one handshake.
pub(crate) struct Ephemeral {
    private: EphemeralPrivateKey,
    pub(crate) point: [u8; POINT],
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ephemeral").finish_non_exhaustive()
    }
}

impl Ephemeral {
    pub(crate) fn generate() -> Option<Self> {
        let private = EphemeralPrivateKey::generate(&agreement::ECDH_P256, &SystemRandom::new()).ok()?;
        let point = private.compute_public_key().ok()?;
        let point = *point.as_ref().first_chunk()?;
        Some(Self { private, point })
    }

    /// The shared x coordinate, leading zeros kept; `None` when the peer's point is not on the curve.
    pub(crate) fn agree(self, peer: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let peer = UnparsedPublicKey::new(&agreement::ECDH_P256, peer);
        agreement::agree_ephemeral(self.private, &peer, |shared| {
            let mut x = Zeroizing::new([0; 32]);
            (shared.len() == 32).then(|| {
                x.copy_from_slice(shared);
                x
            })
        })
        .ok()?
    }
}
