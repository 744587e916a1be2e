//! Invariant: whatever was sealed with the right key, an import refuses it or gives an association that takes any
//! record and sends below its mark only; what was sealed with another key is refused.

#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;

use dtls::{
    Answer, Association, Config, Handler, Identity, ImportError, Instant, PskKeys, SealingKey, Server,
    SystemRandom,
};
use libfuzzer_sys::fuzz_target;
use ring::{aead, hmac};

const KEY: [u8; 32] = [7; 32];
const RECORD: u64 = 5;
const GENERATION: u64 = 3;

struct Site;

impl Handler for Site {
    fn psk(&mut self, _identity: &[u8]) -> Answer<PskKeys> {
        Answer::Unknown
    }

    fn peer(&mut self, _identity: &Identity, _der: &[u8]) -> Answer<()> {
        Answer::Unknown
    }

    fn unix_time(&mut self) -> u64 {
        0
    }

    fn datagram(&mut self, _from: &Association<'_>, _payload: &[u8]) {}
}

/// Seals a state as an export does.
fn seal(state: &[u8]) -> Option<Vec<u8>> {
    let salt = [9; 16];
    let outer = hmac::Key::new(hmac::HMAC_SHA256, &KEY);
    let mut context = hmac::Context::with_key(&outer);
    context.update(b"dtls session");
    context.update(&salt);
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, context.sign().as_ref()).ok()?;
    let key = aead::LessSafeKey::new(key);
    let aad = [&RECORD.to_be_bytes()[..], &GENERATION.to_be_bytes(), &[1]].concat();
    let mut sealed = state.to_vec();
    let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
    key.seal_in_place_append_tag(nonce, aead::Aad::from(aad), &mut sealed)
        .ok()?;
    Some([&[1][..], &salt, &GENERATION.to_be_bytes(), &sealed].concat())
}

fuzz_target!(|bytes: &[u8]| {
    let mut server = Server::new(Arc::new(Config::default()), Box::new(SystemRandom));
    let now = Instant::from_micros(1);
    let key = SealingKey::new(KEY);
    let raw = server.import(bytes, RECORD, GENERATION + 1, &key, now);
    assert_eq!(raw, Err(ImportError::Unreadable));
    let Some(sealed) = seal(bytes) else { return };
    let unclaimed = server.import(&sealed, RECORD, GENERATION, &key, now);
    assert!(unclaimed.is_err());
    let Ok(association) = server.import(&sealed, RECORD, GENERATION + 1, &key, now) else {
        return;
    };
    assert!(server.import(&sealed, RECORD, GENERATION + 1, &key, now).is_err());
    server.send(association, b"x").ok();
    server.export(association, &key);
    let from = SocketAddr::from(([192, 0, 2, 1], 5684));
    server.receive_datagram(from, bytes, now, &mut Site);
    server.close(association);
    assert_eq!(server.statistics().sessions, 0);
});
