//! Invariant: see `dtls::fuzzing::records`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((selector, rest)) = bytes.split_first() {
        dtls::fuzzing::records(*selector, rest);
    }
});
