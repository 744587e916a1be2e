//! AES-128-CCM with a 12-byte nonce (RFC 3610, RFC 6655 3), the counter and the MAC in one pass.
//!
//! The mode is ours because it is most of the work of a record: interleaved inside the cipher's backend it takes a
//! third of the time of two passes. The block cipher is that of the crate `aes`; the crate `ccm` is the oracle of the
//! tests.

use aes::Aes128Enc;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use subtle::ConstantTimeEq;

const BLOCK: usize = 16;
/// Bytes of the length field and of the counter: 15 less the nonce.
const L: u8 = 3;

/// Encrypts `text`; the first `tag_length` bytes of the result are the tag.
pub(crate) fn seal(
    key: &[u8; 16],
    nonce: &[u8; 12],
    aad: &[u8],
    text: &mut [u8],
    tag_length: usize,
) -> [u8; BLOCK] {
    run::<true>(key, nonce, aad, text, tag_length)
}

/// Decrypts `text`; false when it is not what the tag was made for.
pub(crate) fn open(key: &[u8; 16], nonce: &[u8; 12], aad: &[u8], text: &mut [u8], tag: &[u8]) -> bool {
    let expected = run::<false>(key, nonce, aad, text, tag.len());
    expected
        .get(..tag.len())
        .is_some_and(|expected| expected.ct_eq(tag).into())
}

fn run<const SEAL: bool>(
    key: &[u8; 16],
    nonce: &[u8; 12],
    aad: &[u8],
    text: &mut [u8],
    tag_length: usize,
) -> [u8; BLOCK] {
    let mut tag = [0; BLOCK];
    let cipher = Aes128Enc::new(key.into());
    cipher.encrypt_with_backend(Pass::<SEAL> {
        nonce,
        aad,
        text,
        tag_length,
        tag: &mut tag,
    });
    tag
}

struct Pass<'a, const SEAL: bool> {
    nonce: &'a [u8; 12],
    aad: &'a [u8],
    text: &'a mut [u8],
    tag_length: usize,
    tag: &'a mut [u8; BLOCK],
}

/// flags ‖ nonce ‖ number, as a block.
fn block(flags: u8, nonce: &[u8; 12], number: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let (head, tail) = block.split_at_mut(13);
    for (to, from) in head.iter_mut().zip([flags].iter().chain(nonce)) {
        *to = *from;
    }
    // Records are far below 2^24 bytes.
    let [.., a, b, c] = number.to_be_bytes();
    tail.copy_from_slice(&[a, b, c]);
    block
}

/// The bytes with zeros behind them.
#[inline]
fn padded(bytes: &[u8]) -> u128 {
    let mut block = [0; BLOCK];
    for (to, from) in block.iter_mut().zip(bytes) {
        *to = *from;
    }
    u128::from_ne_bytes(block)
}

impl<const SEAL: bool> BlockSizeUser for Pass<'_, SEAL> {
    type BlockSize = U16;
}

impl<const SEAL: bool> BlockCipherEncClosure for Pass<'_, SEAL> {
    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let encrypt = |block: u128| {
            let mut block = block.to_ne_bytes().into();
            backend.encrypt_block_inplace(&mut block);
            u128::from_ne_bytes(block.into())
        };
        let tag_flags = u8::try_from(self.tag_length.saturating_sub(2) / 2).unwrap_or_default();
        let flags = u8::from(!self.aad.is_empty()) << 6 | tag_flags << 3 | (L - 1);
        let start = block(flags, self.nonce, self.text.len());
        let mut mac = encrypt(u128::from_ne_bytes(start));
        if !self.aad.is_empty() {
            let mut first = [0; BLOCK];
            let length = u16::try_from(self.aad.len()).unwrap_or_default().to_be_bytes();
            let (head, rest) = self.aad.split_at(self.aad.len().min(BLOCK - 2));
            for (to, from) in first.iter_mut().zip(length.iter().chain(head)) {
                *to = *from;
            }
            mac = encrypt(mac ^ u128::from_ne_bytes(first));
            for part in rest.chunks(BLOCK) {
                mac = encrypt(mac ^ padded(part));
            }
        }
        let counter = u128::from_be_bytes(block(L - 1, self.nonce, 0));
        let mask = encrypt(counter.to_be());
        let mut count = counter;
        let (blocks, tail) = self.text.as_chunks_mut::<BLOCK>();
        for block in blocks {
            count += 1;
            let stream = encrypt(count.to_be());
            let before = u128::from_ne_bytes(*block);
            let after = before ^ stream;
            mac = encrypt(mac ^ if SEAL { before } else { after });
            *block = after.to_ne_bytes();
        }
        if !tail.is_empty() {
            let stream = encrypt((count + 1).to_be()).to_ne_bytes();
            let before = padded(tail);
            for (byte, stream) in tail.iter_mut().zip(stream) {
                *byte ^= stream;
            }
            mac = encrypt(mac ^ if SEAL { before } else { padded(tail) });
        }
        *self.tag = (mac ^ mask).to_ne_bytes();
    }
}

#[cfg(test)]
mod tests {
    use ccm::Ccm;
    use ccm::aead::{AeadInOut, KeyInit};
    use ccm::consts::{U8, U12, U13, U16};
    use proptest::prelude::*;

    /// Packet vector 1 of RFC 3610. Its nonce is longer than that of RFC 6655, so the oracle is what is held to it.
    #[test]
    fn the_oracle_gives_the_vector_of_rfc_3610() {
        let counting = |first: u8, count: u8| (first..first + count).collect::<Vec<_>>();
        let key: [u8; 16] = counting(0xc0, 16).try_into().expect("16 bytes");
        let nonce = [0, 0, 0, 3, 2, 1, 0, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5];
        let mut text = counting(8, 23);
        let cipher = Ccm::<aes::Aes128, U8, U13>::new(&key.into());
        let tag = cipher.encrypt_inout_detached(&nonce.into(), &counting(0, 8), text.as_mut_slice().into());
        let expected = [
            0x58, 0x8c, 0x97, 0x9a, 0x61, 0xc6, 0x63, 0xd2, 0xf0, 0x66, 0xd0, 0xc2, 0xc0, 0xf9, 0x89, 0x80,
            0x6d, 0x5f, 0x6b, 0x61, 0xda, 0xc3, 0x84,
        ];
        assert_eq!(text, expected);
        let expected = [0x17, 0xe8, 0xd1, 0x2c, 0xfd, 0xf9, 0x26, 0xe0];
        assert_eq!(tag.expect("short").as_slice(), expected);
    }

    proptest! {
        #[test]
        fn it_agrees_with_another_implementation(
            key in any::<[u8; 16]>(),
            nonce in any::<[u8; 12]>(),
            aad in prop::collection::vec(any::<u8>(), 0..64),
            text in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut ours = text.clone();
            let mut theirs = text.clone();
            let tag = super::seal(&key, &nonce, &aad, &mut ours, 8);
            let cipher = Ccm::<aes::Aes128, U8, U12>::new(&key.into());
            let expected = cipher.encrypt_inout_detached(&nonce.into(), &aad, theirs.as_mut_slice().into());
            let expected = expected.expect("short");
            prop_assert_eq!(&tag[..8], expected.as_slice());
            prop_assert_eq!(&ours, &theirs);
            prop_assert!(super::open(&key, &nonce, &aad, &mut ours, &tag[..8]));
            prop_assert_eq!(&ours, &text);

            let mut theirs = text.clone();
            let tag = super::seal(&key, &nonce, &aad, &mut ours, 16);
            let cipher = Ccm::<aes::Aes128, U16, U12>::new(&key.into());
            let expected = cipher.encrypt_inout_detached(&nonce.into(), &aad, theirs.as_mut_slice().into());
            let expected = expected.expect("short");
            prop_assert_eq!(&tag[..], expected.as_slice());
            prop_assert_eq!(&ours, &theirs);
        }
    }
}
