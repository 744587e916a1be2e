//! Invariant: any bytes are a message or one named error; a message that is written again reads the same.

#![no_main]

use coap::{Encoder, Message, ParseError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let message = match Message::parse(bytes) {
        Ok(message) => message,
        Err(ParseError::NotCoap) => {
            assert!(bytes.len() < 4 || bytes[0] >> 6 != 1);
            return;
        }
        Err(ParseError::Malformed { mid, .. }) => {
            assert_eq!(mid.to_be_bytes(), bytes[2..4]);
            return;
        }
    };
    let mut buf = Vec::new();
    let mut encoder = Encoder::new(&mut buf, message.kind, message.code, message.mid, message.token);
    for (number, value) in &message.options {
        encoder.option(number, value);
    }
    encoder.payload(message.payload);
    assert!(!encoder.is_broken());
    let again = Message::parse(&buf).expect("what was written is a message");
    assert_eq!(
        (again.kind, again.code, again.mid, again.token),
        (message.kind, message.code, message.mid, message.token)
    );
    assert!(again.options.iter().eq(message.options.iter()));
    assert_eq!(again.payload, message.payload);
    assert_eq!(again.options.unknown_critical, message.options.unknown_critical);
    assert_eq!(
        (again.options.block1, again.options.block2),
        (message.options.block1, message.options.block2)
    );
    // A segment that breaks its own format makes the option unknown, which ends the request with 4.02.
    if message.options.unknown_critical.is_none() {
        for text in message.options.path().chain(message.options.query()) {
            assert!(text.len() <= 255);
        }
    }
});
