//! Identities as text: `psk:` and the identity of a pre-shared key, `rpk:` or `x509:` and a SHA-256 in hexadecimal.

use std::fmt::Write;

use dtls::Identity;
use ring::digest::{SHA256, digest};

use crate::key::IdentityHash;

const PSK: &str = "psk:";
const RPK: &str = "rpk:";
const X509: &str = "x509:";

/// The text of an identity. Bytes of a PSK identity that are not printable ASCII, and `%`, stand percent-encoded.
#[must_use]
pub fn text(identity: &Identity) -> String {
    match identity {
        Identity::Psk(bytes) => {
            let mut text = String::with_capacity(PSK.len() + bytes.len());
            text.push_str(PSK);
            for &byte in bytes {
                if matches!(byte, b' '..=b'~') && byte != b'%' {
                    text.push(char::from(byte));
                } else {
                    // Writing to a string does not fail.
                    let _ = write!(text, "%{byte:02X}");
                }
            }
            text
        }
        Identity::RawPublicKey(fingerprint) => hexadecimal(RPK, fingerprint),
        Identity::Certificate { fingerprint, .. } => hexadecimal(X509, fingerprint),
    }
}

/// Bytes in lower-case hexadecimal behind a scheme.
pub(crate) fn hexadecimal(scheme: &str, bytes: &[u8]) -> String {
    let mut text = String::with_capacity(scheme.len() + 2 * bytes.len());
    text.push_str(scheme);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The identity that has this text, a certificate's without its names; `None` for any other text.
#[must_use]
pub fn parse(identity: &str) -> Option<Identity> {
    let found = if let Some(rest) = identity.strip_prefix(PSK) {
        Identity::Psk(percent_decoded(rest)?.into())
    } else if let Some(rest) = identity.strip_prefix(RPK) {
        Identity::RawPublicKey(parse_fingerprint(rest)?)
    } else {
        Identity::Certificate {
            fingerprint: parse_fingerprint(identity.strip_prefix(X509)?)?,
            names: Box::default(),
        }
    };
    // Each identity has one text.
    (text(&found) == identity).then_some(found)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| digit.try_into().ok())
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (&[high, low], after) = rest.split_first_chunk()?;
            rest = after;
            bytes.push(nibble(high)? << 4 | nibble(low)?);
        } else {
            bytes.push(first);
        }
    }
    Some(bytes)
}

fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let bytes = pairs
        .iter()
        .map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?))
        .collect::<Option<Vec<u8>>>()?;
    bytes.try_into().ok()
}

/// The SHA-256 of a key or certificate.
pub(crate) fn fingerprint(der: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, der);
    digest.as_ref().try_into().unwrap_or_default()
}

/// The names in a certificate, the common name first (empty without one); none for other identities.
#[must_use]
pub fn names(identity: &Identity) -> &[Box<str>] {
    match identity {
        Identity::Certificate { names, .. } => names,
        Identity::Psk(_) | Identity::RawPublicKey(_) => &[],
    }
}

/// What stands for an identity in keys.
#[must_use]
pub fn hash(text: &str) -> IdentityHash {
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identity_has_one_text() {
        let psk = |bytes: &[u8]| Identity::Psk(bytes.into());
        assert_eq!(text(&psk(b"urn:dev 1")), "psk:urn:dev 1");
        assert_eq!(text(&psk(b"a%\x00\xff~")), "psk:a%25%00%FF~");
        assert_eq!(
            text(&Identity::RawPublicKey([0xab; 32])),
            format!("rpk:{}", "ab".repeat(32))
        );
        for identity in [
            psk(b""),
            psk(b"a%\x00\xff~"),
            Identity::RawPublicKey([7; 32]),
            Identity::Certificate {
                fingerprint: [8; 32],
                names: Box::default(),
            },
        ] {
            assert_eq!(parse(&text(&identity)), Some(identity));
        }
        let upper = format!("rpk:{}", "AB".repeat(32));
        for other in [
            "", "dev1", "psk", "psk:%", "psk:%4", "psk:%zz", "psk:%41", "psk:é", "rpk:", "rpk:abc", &upper,
            "x509:00",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
