//! AES-128 in CCM and GCM under a 12-byte nonce (RFC 6655 3, RFC 5288 3).
//!
//! Keys are expanded for each record: that costs less than the memory of expanded keys in a million associations.

use ring::aead as gcm;

use crate::ccm;
use crate::suite::Aead;

/// Encrypts `buf` from `start` on and appends the tag; false (and nothing appended) when it is too long.
pub(crate) fn seal(
    cipher: Aead,
    key: &[u8; 16],
    nonce: &[u8; 12],
    aad: &[u8],
    buf: &mut Vec<u8>,
    start: usize,
) -> bool {
    let text = buf.get_mut(start..).unwrap_or_default();
    let tag_length = cipher.tag_length();
    match cipher {
        Aead::Ccm8 | Aead::Ccm => {
            let tag = ccm::seal(key, nonce, aad, text, tag_length);
            buf.extend(tag.iter().take(tag_length));
            true
        }
        Aead::Gcm => {
            let Some(cipher) = gcm_key(key) else { return false };
            let nonce = gcm::Nonce::assume_unique_for_key(*nonce);
            let tag = cipher.seal_in_place_separate_tag(nonce, gcm::Aad::from(aad), text);
            tag.map(|tag| buf.extend_from_slice(tag.as_ref())).is_ok()
        }
    }
}

/// Decrypts ciphertext ‖ tag in place; the length of the plaintext, or `None` when it is not authentic.
pub(crate) fn open(
    cipher: Aead,
    key: &[u8; 16],
    nonce: &[u8; 12],
    aad: &[u8],
    buf: &mut [u8],
) -> Option<usize> {
    let length = buf.len().checked_sub(cipher.tag_length())?;
    let (text, tag) = buf.split_at_mut(length);
    match cipher {
        Aead::Ccm8 | Aead::Ccm => ccm::open(key, nonce, aad, text, tag).then_some(length),
        Aead::Gcm => {
            let nonce = gcm::Nonce::assume_unique_for_key(*nonce);
            let opened = gcm_key(key)?.open_in_place(nonce, gcm::Aad::from(aad), buf);
            opened.ok().map(|text| text.len())
        }
    }
}

fn gcm_key(key: &[u8]) -> Option<gcm::LessSafeKey> {
    let key = gcm::UnboundKey::new(&gcm::AES_128_GCM, key).ok()?;
    Some(gcm::LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITES: [Aead; 3] = [Aead::Ccm8, Aead::Ccm, Aead::Gcm];

    /// Example 3 of SP 800-38C: 12-byte nonce, 8-byte tag, as the record layer uses CCM.
    #[test]
    fn ccm_8_gives_the_vector_of_sp_800_38c_example_3() {
        let key: [u8; 16] = std::array::from_fn(|at| 0x40 + u8::try_from(at).expect("small"));
        let nonce: [u8; 12] = std::array::from_fn(|at| 0x10 + u8::try_from(at).expect("small"));
        let aad: Vec<u8> = (0..20).collect();
        let mut buf: Vec<u8> = (0x20..0x38).collect();
        assert!(seal(Aead::Ccm8, &key, &nonce, &aad, &mut buf, 0));
        let expected = [
            0xe3, 0xb2, 0x01, 0xa9, 0xf5, 0xb7, 0x1a, 0x7a, 0x9b, 0x1c, 0xea, 0xec, 0xcd, 0x97, 0xe7, 0x0b,
            0x61, 0x76, 0xaa, 0xd9, 0xa4, 0x42, 0x8a, 0xa5, 0x48, 0x43, 0x92, 0xfb, 0xc1, 0xb0, 0x99, 0x51,
        ];
        assert_eq!(buf, expected);
    }

    #[test]
    fn what_was_sealed_opens_and_any_changed_bit_does_not() {
        for aead in SUITES {
            for length in [0_usize, 1, 15, 16, 17, 300, 16384] {
                let text: Vec<u8> = (0..=255).cycle().take(length).collect();
                let mut buf = text.clone();
                assert!(seal(aead, &[7; 16], &[9; 12], b"aad", &mut buf, 0));
                assert_eq!(buf.len(), length + aead.tag_length());
                let sealed = buf.clone();
                assert_eq!(open(aead, &[7; 16], &[9; 12], b"aad", &mut buf), Some(length));
                assert_eq!(&buf[..length], text);
                for at in [0, length / 2, sealed.len() - 1] {
                    let mut bad = sealed.clone();
                    bad[at] ^= 1;
                    assert_eq!(open(aead, &[7; 16], &[9; 12], b"aad", &mut bad), None);
                }
                assert_eq!(open(aead, &[7; 16], &[9; 12], b"aae", &mut sealed.clone()), None);
            }
            assert_eq!(open(aead, &[7; 16], &[9; 12], b"", &mut [0; 7]), None);
        }
    }
}
