//! Invariant: see `dtls::fuzzing::message` and `dtls::fuzzing::fragments`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    if let (0x80.., Some((budget, rest))) = (*kind, rest.split_first_chunk()) {
        dtls::fuzzing::fragments(u16::from_be_bytes(*budget), rest);
    } else {
        dtls::fuzzing::message(*kind, rest);
    }
});
