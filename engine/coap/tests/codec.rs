//! The message format: what is written is read back, and any bytes are a message or one named error.

use coap::{Block, Code, Encoder, Kind, Message, ParseError, Token, number};
use proptest::collection::vec;
use proptest::prelude::*;

fn encode(
    kind: Kind,
    code: Code,
    mid: u16,
    token: &[u8],
    options: &[(u16, Vec<u8>)],
    payload: &[u8],
) -> Vec<u8> {
    let mut buf = Vec::new();
    let token = Token::new(token).expect("at most 8 bytes");
    let mut encoder = Encoder::new(&mut buf, kind, code, mid, token);
    for (number, value) in options {
        encoder.option(*number, value);
    }
    encoder.payload(payload);
    assert!(!encoder.is_broken());
    buf
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        kind in 0_u8..4,
        code in 1_u8..,
        mid: u16,
        token in vec(any::<u8>(), 0..=8),
        mut options in vec((any::<u16>(), vec(any::<u8>(), 0..300)), 0..12),
        payload in vec(any::<u8>(), 0..1200),
    ) {
        options.sort_by_key(|(number, _)| *number);
        let kind = Kind::from_bits(kind);
        let bytes = encode(kind, Code(code), mid, &token, &options, &payload);
        let message = Message::parse(&bytes).expect("well-formed");
        prop_assert_eq!((message.kind, message.code, message.mid), (kind, Code(code), mid));
        prop_assert_eq!(message.token.as_bytes(), &token[..]);
        let read: Vec<_> = message.options.iter().map(|(number, value)| (number, value.to_vec())).collect();
        prop_assert_eq!(read, options);
        prop_assert_eq!(message.payload, &payload[..]);
    }

    #[test]
    fn any_bytes_are_a_message_or_one_named_error(bytes in vec(any::<u8>(), 0..200)) {
        match Message::parse(&bytes) {
            Ok(message) => {
                let options: Vec<_> =
                    message.options.iter().map(|(number, value)| (number, value.to_vec())).collect();
                let token = message.token;
                let again = encode(message.kind, message.code, message.mid, token.as_bytes(), &options, message.payload);
                let read = Message::parse(&again).expect("well-formed");
                prop_assert_eq!(read.payload, message.payload);
                prop_assert_eq!(read.options.iter().count(), options.len());
            }
            Err(ParseError::NotCoap) => prop_assert!(bytes.len() < 4 || bytes[0] >> 6 != 1),
            Err(ParseError::Malformed { mid, .. }) => {
                prop_assert_eq!(mid, u16::from_be_bytes([bytes[2], bytes[3]]));
            }
        }
    }

    #[test]
    fn a_header_of_version_1_before_any_bytes_parses_or_is_malformed(head in 0x40_u8..0x80, rest in vec(any::<u8>(), 3..80)) {
        let bytes = [vec![head], rest].concat();
        prop_assert_ne!(Message::parse(&bytes).err(), Some(ParseError::NotCoap));
    }

    #[test]
    fn a_block_option_keeps_its_value(num in 0_u32..1 << 20, more: bool, szx in 0_u8..8) {
        let block = Block { num, more, szx };
        prop_assert_eq!(Block::from_uint(block.to_uint()), block);
    }

    #[test]
    fn a_smaller_block_starts_at_the_same_byte(num in 0_u32..1 << 14, szx in 0_u8..7, limit in 0_u8..7) {
        let block = Block { num, more: true, szx };
        let cut = block.at_most(limit);
        prop_assert_eq!(cut.offset(), block.offset());
        prop_assert!(cut.szx <= szx && cut.szx <= limit.max(szx.min(limit)));
    }
}

#[test]
fn the_example_of_rfc_7252_appendix_a_encodes_byte_for_byte() {
    let options = [(number::URI_PATH, b"temperature".to_vec())];
    let request = encode(Kind::Confirmable, Code::GET, 0x7d34, &[], &options, &[]);
    assert_eq!(request, b"\x40\x01\x7d\x34\xbbtemperature");
    let answer = encode(Kind::Acknowledgement, Code::CONTENT, 0x7d34, &[], &[], b"22.3 C");
    assert_eq!(answer, b"\x60\x45\x7d\x34\xff22.3 C");
}

#[test]
fn extended_deltas_and_lengths_are_those_of_rfc_7252_3_1() {
    let options = [
        (12, vec![7; 12]),
        (25, vec![8; 13]),
        (293, vec![9; 268]),
        (562, vec![1; 269]),
    ];
    let bytes = encode(Kind::NonConfirmable, Code::GET, 1, &[], &options, &[]);
    assert_eq!(bytes[4], 0xcc);
    assert_eq!(&bytes[17..20], [0xdd, 0, 0]);
    assert_eq!(&bytes[33..36], [0xdd, 255, 255]);
    assert_eq!(&bytes[304..309], [0xee, 0, 0, 0, 0]);
    let message = Message::parse(&bytes).expect("well-formed");
    assert_eq!(
        message
            .options
            .iter()
            .map(|(number, _)| number)
            .collect::<Vec<_>>(),
        [12, 25, 293, 562]
    );
}

#[test]
fn a_uint_is_written_in_its_shortest_form_and_zero_has_no_bytes() {
    for (value, length) in [(0, 0), (1, 1), (255, 1), (256, 2), (65_536, 3), (u32::MAX, 4)] {
        let mut buf = Vec::new();
        Encoder::new(&mut buf, Kind::Confirmable, Code::GET, 1, Token::EMPTY).uint(number::SIZE1, value);
        let message = Message::parse(&buf).expect("well-formed");
        let (_, bytes) = message.options.iter().next().expect("one option");
        assert_eq!((bytes.len(), message.options.size1), (length, Some(value)));
    }
}

#[test]
fn zero_length_uint_options_are_zero() {
    let names = [
        number::OBSERVE,
        number::CONTENT_FORMAT,
        number::MAX_AGE,
        number::ACCEPT,
        number::BLOCK2,
        number::BLOCK1,
    ];
    let options: Vec<_> = names.iter().map(|number| (*number, Vec::new())).collect();
    let bytes = encode(Kind::Confirmable, Code::GET, 1, &[], &options, &[]);
    let options = Message::parse(&bytes).expect("well-formed").options;
    assert_eq!(
        (options.observe, options.content_format, options.max_age),
        (Some(0), Some(0), Some(0))
    );
    assert_eq!((options.accept, options.unknown_critical), (Some(0), None));
    assert_eq!(
        (options.block1, options.block2),
        (Some(Block::default()), Some(Block::default()))
    );
}

#[test]
fn content_format_65535_is_a_value_like_any_other() {
    let bytes = encode(
        Kind::Confirmable,
        Code::POST,
        1,
        &[],
        &[(number::CONTENT_FORMAT, vec![255, 255])],
        b"x",
    );
    assert_eq!(
        Message::parse(&bytes)
            .expect("well-formed")
            .options
            .content_format,
        Some(65_535)
    );
}

#[test]
fn malformed_messages_keep_type_and_message_id() {
    let malformed = |bytes: &[u8]| Message::parse(bytes).expect_err("malformed");
    let con = ParseError::Malformed {
        kind: Kind::Confirmable,
        mid: 0x0102,
    };
    let cases: [(&str, &[u8]); 8] = [
        ("a token length of 9", b"\x49\x01\x01\x02123456789"),
        ("a token cut short", b"\x44\x01\x01\x02abc"),
        ("an option delta of 15", b"\x40\x01\x01\x02\xf0"),
        ("an option length of 15", b"\x40\x01\x01\x02\x0f"),
        ("an option cut short", b"\x40\x01\x01\x02\xb4abc"),
        ("a payload marker without payload", b"\x40\x01\x01\x02\xff"),
        (
            "an option number above 65535",
            b"\x40\x01\x01\x02\xe0\xff\xff\xe0\x00\x00",
        ),
        ("an empty message with a token", b"\x41\x00\x01\x02a"),
    ];
    for (what, bytes) in cases {
        assert_eq!(malformed(bytes), con, "{what}");
    }
    assert_eq!(malformed(b""), ParseError::NotCoap);
    assert_eq!(malformed(b"\x40\x01\x01"), ParseError::NotCoap);
    assert_eq!(malformed(b"\x80\x01\x01\x02"), ParseError::NotCoap);
}

#[test]
fn options_that_break_their_format_count_as_unrecognized() {
    let check = |options: &[(u16, Vec<u8>)]| {
        let bytes = encode(Kind::Confirmable, Code::GET, 1, &[], options, &[]);
        Message::parse(&bytes)
            .expect("well-formed")
            .options
            .unknown_critical
    };
    assert_eq!(
        check(&[(number::ACCEPT, vec![0, 0, 1])]),
        Some(number::ACCEPT),
        "too long"
    );
    assert_eq!(
        check(&[(number::ACCEPT, vec![1]), (number::ACCEPT, vec![1])]),
        Some(number::ACCEPT),
        "repeated"
    );
    assert_eq!(
        check(&[(number::URI_PATH, vec![0xff, 0xfe])]),
        Some(number::URI_PATH),
        "not UTF-8"
    );
    assert_eq!(
        check(&[(number::CONTENT_FORMAT, vec![0, 0, 1])]),
        None,
        "elective ones are ignored"
    );
    assert_eq!(check(&[(9, vec![])]), Some(9), "unknown and critical");
    assert_eq!(check(&[(10, vec![])]), None, "unknown and elective");
    assert_eq!(
        check(&[
            (number::URI_PATH, b"a".to_vec()),
            (number::URI_PATH, b"b".to_vec())
        ]),
        None,
        "repeatable"
    );
}

#[test]
fn an_option_out_of_order_breaks_the_message_and_says_so() {
    let mut buf = Vec::new();
    let mut encoder = Encoder::new(&mut buf, Kind::Confirmable, Code::GET, 1, Token::EMPTY);
    encoder.uint(number::ACCEPT, 0);
    encoder.option(number::URI_PATH, b"late");
    assert!(encoder.is_broken());
    assert!(Message::parse(&buf).is_ok());
}
