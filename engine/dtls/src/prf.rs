//! The pseudo-random function with SHA-256 and what is derived by it (RFC 5246 5, 6.3, 8.1; RFC 7627 4).

use ring::{digest, hmac};
use zeroize::Zeroizing;

use crate::wire::{put_u16, put_vec16};

/// 48 bytes from which all keys of an association come.
pub(crate) type Master = Zeroizing<[u8; 48]>;

/// Length of `verify_data`.
pub(crate) const VERIFY_DATA: usize = 12;

/// Longest label and seeds together: those of the keys.
const MAX_SEED: usize = 13 + 64;

/// The function with one secret. A lasting copy would not be zeroized, so it is made where it is used.
pub(crate) struct Prf(hmac::Key);

impl Prf {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// PRF(secret, label, seeds), as many bytes as `out` has.
    pub(crate) fn fill(&self, label: &[u8], seeds: [&[u8]; 2], out: &mut [u8]) {
        // A(i) ‖ label ‖ seeds
        let mut text = [0; 32 + MAX_SEED];
        let mut end = 32;
        for part in [label, seeds[0], seeds[1]] {
            text[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        let mut a = hmac::sign(&self.0, &text[32..end]);
        let mut chunks = out.chunks_mut(32).peekable();
        while let Some(chunk) = chunks.next() {
            text[..32].copy_from_slice(a.as_ref());
            let block = hmac::sign(&self.0, &text[..end]);
            chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
            if chunks.peek().is_some() {
                a = hmac::sign(&self.0, a.as_ref());
            }
        }
    }

    /// `verify_data` of the side that `label` names; the secret is the master secret.
    pub(crate) fn verify_data(&self, label: &[u8], transcript: &[u8; 32]) -> [u8; VERIFY_DATA] {
        let mut data = [0; VERIFY_DATA];
        self.fill(label, [transcript, &[]], &mut data);
        data
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// other secret ‖ PSK with their lengths; the other secret is zeros without ECDHE (RFC 4279 2, RFC 5489 2).
pub(crate) fn psk_premaster(shared: Option<&[u8]>, psk: &[u8]) -> Zeroizing<Vec<u8>> {
    let other = shared.map_or(psk.len(), <[u8]>::len);
    let mut premaster = Zeroizing::new(Vec::with_capacity(4 + other + psk.len()));
    if let Some(shared) = shared {
        put_vec16(&mut premaster, shared);
    } else {
        put_u16(&mut premaster, other);
        premaster.resize(2 + other, 0);
    }
    put_vec16(&mut premaster, psk);
    premaster
}

pub(crate) fn master_secret(premaster: &[u8], client: &[u8; 32], server: &[u8; 32]) -> Master {
    let mut master = Master::default_zeroed();
    let seeds = [client.as_slice(), server];
    Prf::new(premaster).fill(b"master secret", seeds, master.as_mut());
    master
}

/// `session_hash` covers the messages up to and with `ClientKeyExchange`.
pub(crate) fn extended_master_secret(premaster: &[u8], session_hash: &[u8; 32]) -> Master {
    let mut master = Master::default_zeroed();
    let seeds = [session_hash.as_slice(), &[]];
    Prf::new(premaster).fill(b"extended master secret", seeds, master.as_mut());
    master
}

/// The keys of one direction: the cipher's, the implicit part of the nonce with AEAD, the MAC's with CBC.
#[derive(Clone)]
pub(crate) struct DirectionKey {
    pub(crate) key: [u8; 16],
    pub(crate) iv: [u8; 4],
    pub(crate) mac: Option<Box<[u8; 32]>>,
}

impl Drop for DirectionKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
        zeroize::Zeroize::zeroize(&mut self.iv);
        if let Some(mac) = self.mac.as_deref_mut() {
            zeroize::Zeroize::zeroize(mac);
        }
    }
}

/// Client's and server's write keys (RFC 5246 6.3): MAC keys where the suite has a MAC, keys, implicit nonces where it
/// has none (RFC 5288 3).
pub(crate) fn key_block(
    master: &Master,
    client: &[u8; 32],
    server: &[u8; 32],
    with_mac: bool,
) -> [DirectionKey; 2] {
    let mut block = Zeroizing::new([0; 96]);
    let length = if with_mac { 96 } else { 40 };
    let block = block.get_mut(..length).unwrap_or_default();
    Prf::new(master.as_ref()).fill(b"key expansion", [server, client], block);
    let mut left = &*block;
    let mut macs = [None, None];
    if with_mac {
        macs = [(); 2].map(|()| Some(Box::new(take(&mut left))));
    }
    let [client_mac, server_mac] = macs;
    let [client_key, server_key] = [(); 2].map(|()| take(&mut left));
    let [client_iv, server_iv] = [(); 2].map(|()| if with_mac { [0; 4] } else { take(&mut left) });
    [
        (client_key, client_iv, client_mac),
        (server_key, server_iv, server_mac),
    ]
    .map(|(key, iv, mac)| DirectionKey { key, iv, mac })
}

/// The next bytes of a key block, whose length is known.
fn take<const N: usize>(left: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    if let Some((head, rest)) = left.split_first_chunk::<N>() {
        bytes = *head;
        *left = rest;
    }
    bytes
}

trait Zeroed {
    fn default_zeroed() -> Self;
}

impl Zeroed for Master {
    fn default_zeroed() -> Self {
        Zeroizing::new([0; 48])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits
            .chunks(2)
            .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).expect("two digits"))
            .collect()
    }

    /// The vector for `P_SHA256` that the TLS working group's list has for TLS 1.2.
    #[test]
    fn prf_gives_the_published_vector() {
        let secret = hex("9bbe436ba940f017b17652849a71db35");
        let seed = hex("a0ba9f936cda311827a6f796ffd5198c");
        let mut out = [0; 100];
        Prf::new(&secret).fill(b"test label", [&seed, &[]], &mut out);
        let expected = hex("e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a
             6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17abfd3797c0564bab
             4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701
             87347b66");
        assert_eq!(out.as_slice(), expected);
    }

    /// The first vectors for TLS 1.2 with SHA-256 of NIST's validation programme (SP 800-135).
    #[test]
    fn secrets_and_keys_give_the_vectors_of_nist() {
        let array = |text: &str| -> [u8; 32] { hex(text).try_into().expect("32 bytes") };
        let premaster = hex(
            "f8938ecc9edebc5030c0c6a441e213cd24e6f770a50dda07876f8d55da062bcadb386b411fd4fe4313a604fce6c17fbc",
        );
        let client = array("36c129d01a3200894b9179faac589d9835d58775f9b5ea3587cb8fd0364cae8c");
        let server = array("f6c9575ed7ddd73e1f7d16eca115415812a43c2b747daaaae043abfb50053fce");
        let master = master_secret(&premaster, &client, &server);
        let expected = hex(
            "202c88c00f84a17a20027079604787461176455539e705be730890602c289a5001e34eeb3a043e5d52a65e66125188bf",
        );
        assert_eq!(master.as_slice(), expected);
        let client = array("62e1fd91f23f558a605f28478c58cf72637b89784d959df7e946d3f07bd1b616");
        let server = array("ae6c806f8ad4d80784549dff28a4b58fd837681a51d928c3e30ee5ff14f39868");
        let [of_client, of_server] = key_block(&master, &client, &server, true);
        let block = [
            of_client.mac.as_deref().expect("with MAC").as_slice(),
            of_server.mac.as_deref().expect("with MAC").as_slice(),
            &of_client.key,
            &of_server.key,
        ]
        .concat();
        let expected = hex("d06139889fffac1e3a71865f504aa5d0d2a2e89506c6f2279b670c3e1b74f531
             016a2530c51a3a0f7e1d6590d0f0566b2f387f8d11fd4f731cdd572d2eae927f
             6f2f81410b25e6960be68985add6c38445ad9f8c64bf8068bf9a6679485d966f");
        assert_eq!(block, expected);
        let [of_client, of_server] = key_block(&master, &client, &server, false);
        let block = [of_client.key, of_server.key].concat();
        assert_eq!(block, expected[..32]);
        assert_eq!([of_client.iv, of_server.iv].concat(), expected[32..40]);
    }

    /// RFC 7627 has no vector; this one is of OpenSSL's `TLS1-PRF`.
    #[test]
    fn an_extended_master_secret_comes_from_its_label_and_the_session_hash() {
        let premaster = hex("9bbe436ba940f017b17652849a71db35");
        let expected = hex(
            "fe7ce20931f62010f06228524c17ec316ad337b10ed71e0972971a5365955b861a2737ff7abe1f04f1ae496f9a806eaa",
        );
        let master = extended_master_secret(&premaster, &sha256(b"session"));
        assert_eq!(master.as_slice(), expected);
    }

    #[test]
    fn a_psk_premaster_is_lengths_zeros_and_the_key() {
        assert_eq!(*psk_premaster(None, b"abc"), b"\0\x03\0\0\0\0\x03abc");
        assert_eq!(*psk_premaster(Some(b"xy"), b"abc"), b"\0\x02xy\0\x03abc");
    }
}
