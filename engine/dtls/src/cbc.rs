//! AES-128-CBC with HMAC-SHA256 (RFC 5246 6.2.3.2, RFC 7366), for the two suites that OMA's transport bindings demand
//! of servers and advise clients against. Nothing else should use it.
//!
//! Where a peer does not know encrypt-then-MAC the MAC is under the encryption, and how long it takes to find a record
//! bad must not tell why (Lucky 13). So every padding that there may be is tried, always: all have their MAC computed,
//! and one mask picks the result. To keep that cheap, padding beyond the next block is not taken; no peer is known that
//! sends it.

use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128Dec, Aes128Enc};
use ring::hmac;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

pub(crate) const BLOCK: usize = 16;
pub(crate) const MAC: usize = 32;
/// The most that a record is longer than its content: initialization vector, MAC, padding.
pub(crate) const OVERHEAD: usize = BLOCK + MAC + BLOCK;

/// Keys of one direction and how the peers have agreed to use them.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub(crate) cipher: &'a [u8; 16],
    pub(crate) mac: &'a [u8; MAC],
    pub(crate) encrypt_then_mac: bool,
}

impl Keys<'_> {
    fn mac(&self) -> hmac::Context {
        hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.mac))
    }
}

/// Length of the ciphertext of so much content.
const fn padded(length: usize) -> usize {
    (length / BLOCK + 1) * BLOCK
}

/// Length of the body of a record with so much content.
pub(crate) const fn body_length(length: usize, encrypt_then_mac: bool) -> usize {
    if encrypt_then_mac {
        BLOCK + padded(length) + MAC
    } else {
        BLOCK + padded(length + MAC)
    }
}

/// Encrypts the content that stands in `buf` from `start` on; what comes out is the body of a record. `header` gives
/// the bytes that the MAC covers before a text of the length given, `number` is the record's, used once.
pub(crate) fn seal<H: AsRef<[u8]>>(
    keys: Keys<'_>,
    header: impl Fn(usize) -> H,
    number: u64,
    buf: &mut Vec<u8>,
    start: usize,
) {
    // Unpredictable without the key, and no MAC's input is as short.
    let mut context = keys.mac();
    context.update(b"iv");
    context.update(&number.to_be_bytes());
    let mut vector = [0; BLOCK];
    for (to, from) in vector.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    let length = buf.len() - start;
    buf.splice(start..start, vector);
    let text = start + BLOCK;
    if !keys.encrypt_then_mac {
        let mut context = keys.mac();
        context.update(header(length).as_ref());
        context.update(buf.get(text..).unwrap_or_default());
        buf.extend_from_slice(context.sign().as_ref());
    }
    let end = text + padded(buf.len() - text);
    let padding = u8::try_from(end - buf.len() - 1).unwrap_or_default();
    buf.resize(end, padding);
    encrypt(keys.cipher, vector, buf.get_mut(text..).unwrap_or_default());
    if keys.encrypt_then_mac {
        let mut context = keys.mac();
        context.update(header(end - start).as_ref());
        context.update(buf.get(start..).unwrap_or_default());
        buf.extend_from_slice(context.sign().as_ref());
    }
}

/// Decrypts the body of a record; its content comes to stand at the beginning of `buf`, and its length is given.
pub(crate) fn open<H: AsRef<[u8]>>(
    keys: Keys<'_>,
    header: impl Fn(usize) -> H,
    body: &[u8],
    buf: &mut Vec<u8>,
) -> Option<usize> {
    let body = if keys.encrypt_then_mac {
        let (sealed, tag) = body.split_at_checked(body.len().checked_sub(MAC)?)?;
        let mut context = keys.mac();
        context.update(header(sealed.len()).as_ref());
        context.update(sealed);
        if !bool::from(context.sign().as_ref().ct_eq(tag)) {
            return None;
        }
        sealed
    } else {
        body
    };
    let (vector, text) = body.split_first_chunk::<BLOCK>()?;
    let least = if keys.encrypt_then_mac { 1 } else { MAC + 1 };
    if text.len() < least || !text.len().is_multiple_of(BLOCK) {
        return None;
    }
    buf.clear();
    buf.extend_from_slice(text);
    decrypt(keys.cipher, *vector, buf);
    if keys.encrypt_then_mac {
        return without_padding(buf);
    }
    try_all(keys, header, buf)
}

/// After the MAC nothing is secret: padding of any length.
fn without_padding(text: &[u8]) -> Option<usize> {
    let padding = *text.last()?;
    let length = text.len().checked_sub(usize::from(padding) + 1)?;
    let is_right = text.get(length..)?.iter().all(|byte| *byte == padding);
    is_right.then_some(length)
}

/// The work depends on the length of the text alone.
fn try_all<H: AsRef<[u8]>>(keys: Keys<'_>, header: impl Fn(usize) -> H, text: &[u8]) -> Option<usize> {
    let mut found = Choice::from(0);
    let mut result = 0_u32;
    for padding in 0..16_u8 {
        let end = text.len() - usize::from(padding) - 1;
        // Too short a text for so much padding is no secret.
        let Some(length) = end.checked_sub(MAC) else {
            break;
        };
        let (content, rest) = text.split_at(length);
        let (tag, padded) = rest.split_at(MAC);
        let mut mac = keys.mac();
        mac.update(header(length).as_ref());
        mac.update(content);
        let mut is_right = mac.sign().as_ref().ct_eq(tag);
        for byte in padded {
            is_right &= byte.ct_eq(&padding);
        }
        let length = u32::try_from(length).unwrap_or_default();
        result = u32::conditional_select(&result, &length, is_right);
        found |= is_right;
    }
    bool::from(found).then_some(usize::try_from(result).unwrap_or_default())
}

fn blocks(text: &mut [u8]) -> impl Iterator<Item = &mut [u8; BLOCK]> {
    text.as_chunks_mut::<BLOCK>().0.iter_mut()
}

fn mix(block: &mut [u8; BLOCK], with: [u8; BLOCK]) {
    for (to, from) in block.iter_mut().zip(with) {
        *to ^= from;
    }
}

fn encrypt(key: &[u8; 16], vector: [u8; BLOCK], text: &mut [u8]) {
    let cipher = Aes128Enc::new(key.into());
    let mut before = vector;
    for block in blocks(text) {
        mix(block, before);
        let mut sealed = Block::<Aes128Enc>::from(*block);
        cipher.encrypt_block(&mut sealed);
        *block = sealed.into();
        before = *block;
    }
}

fn decrypt(key: &[u8; 16], vector: [u8; BLOCK], text: &mut [u8]) {
    let cipher = Aes128Dec::new(key.into());
    let mut before = vector;
    for block in blocks(text) {
        let sealed = *block;
        let mut opened = Block::<Aes128Dec>::from(sealed);
        cipher.decrypt_block(&mut opened);
        *block = opened.into();
        mix(block, before);
        before = sealed;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    fn keys(encrypt_then_mac: bool) -> Keys<'static> {
        Keys {
            cipher: &[3; 16],
            mac: &[4; MAC],
            encrypt_then_mac,
        }
    }

    fn header(length: usize) -> [u8; 8] {
        length.to_be_bytes()
    }

    /// The vector of SP 800-38A F.2.1 and F.2.2.
    #[test]
    fn cbc_gives_the_vector_of_sp_800_38a() {
        let hex = |text: &str| -> Vec<u8> {
            let pairs = (0..text.len()).step_by(2);
            pairs
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
                .collect()
        };
        let key: [u8; 16] = hex("2b7e151628aed2a6abf7158809cf4f3c").try_into().expect("16");
        let vector = std::array::from_fn(|at| u8::try_from(at).expect("small"));
        let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let sealed = hex("7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2");
        let mut text = plain.clone();
        encrypt(&key, vector, &mut text);
        assert_eq!(text, sealed);
        decrypt(&key, vector, &mut text);
        assert_eq!(text, plain);
    }

    /// What RFC 5246 6.2.3.2 says, with branches: the oracle.
    fn naive(text: &[u8]) -> Option<usize> {
        let padding = *text.last()?;
        let end = text.len().checked_sub(usize::from(padding) + 1)?;
        let length = end.checked_sub(MAC)?;
        let mut context = keys(false).mac();
        context.update(&header(length));
        context.update(&text[..length]);
        let is_right = text[end..].iter().all(|byte| *byte == padding)
            && context.sign().as_ref() == &text[length..end]
            && padding < 16;
        is_right.then_some(length)
    }

    proptest! {
        #[test]
        fn all_paddings_at_once_find_what_one_by_one_does(
            content in prop::collection::vec(any::<u8>(), 0..100),
            padding in 0_u8..40,
            bad in prop::option::of((any::<prop::sample::Index>(), 1_u8..)),
        ) {
            let mut text = content.clone();
            let mut context = keys(false).mac();
            context.update(&header(content.len()));
            context.update(&content);
            text.extend_from_slice(context.sign().as_ref());
            text.extend(vec![padding; usize::from(padding) + 1]);
            if let Some((at, change)) = bad {
                let at = at.index(text.len());
                text[at] ^= change;
            }
            let expected = naive(&text);
            prop_assert_eq!(try_all(keys(false), header, &text), expected);
            if bad.is_none() && padding < 16 {
                prop_assert_eq!(expected, Some(content.len()));
            }
        }

        #[test]
        fn what_was_sealed_opens(
            content in prop::collection::vec(any::<u8>(), 0..200),
            encrypt_then_mac: bool,
            number: u64,
        ) {
            let keys = keys(encrypt_then_mac);
            let mut sealed = [b"before".as_slice(), &content].concat();
            seal(keys, header, number, &mut sealed, 6);
            prop_assert_eq!(sealed.len() - 6, body_length(content.len(), encrypt_then_mac));
            let mut buf = Vec::new();
            let opened = open(keys, header, &sealed[6..], &mut buf);
            prop_assert_eq!(opened, Some(content.len()));
            prop_assert_eq!(&buf[..content.len()], content);
            prop_assert!(open(super::tests::keys(!encrypt_then_mac), header, &sealed[6..], &mut buf).is_none());
        }
    }

    #[test]
    fn a_record_without_encrypt_then_mac_costs_the_same_whatever_is_wrong_with_it() {
        let mut sealed = vec![7; 100];
        seal(keys(false), header, 5, &mut sealed, 0);
        let work = |body: &[u8]| {
            let bytes = Cell::new((0, 0));
            let counting = |length| {
                let (count, sum) = bytes.get();
                bytes.set((count + 1, sum + length));
                header(length)
            };
            let is_good = open(keys(false), counting, body, &mut Vec::new()).is_some();
            (is_good, bytes.get())
        };
        let (is_good, good) = work(&sealed);
        assert!(is_good);
        assert_eq!(good.0, 16, "a MAC for each padding");
        for at in 0..sealed.len() {
            for change in [1, 0x10, 0xff] {
                let mut bad = sealed.clone();
                bad[at] ^= change;
                assert_eq!(work(&bad), (false, good), "{at}");
            }
        }
    }
}
