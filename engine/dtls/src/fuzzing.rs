//! What the fuzz targets reach of the parsers; each function holds its own invariant.

use crate::cid::{ConnectionId, MAX_CID};
use crate::hello::{ClientHello, HelloStart, ServerHello, parse_hello_verify_request};
use crate::message::{
    ClientKeyExchange, EcdheParams, encode_new_session_ticket, parse_certificate_request,
    parse_certificate_verify, parse_chain, parse_hint, parse_new_session_ticket, parse_raw_public_key,
};
use crate::prf::DirectionKey;
use crate::reassembly::{Fragment, Reassembly};
use crate::record::{MAX_SENT, Protection, Records};
use crate::suite::{MacOrder, Suite};
use crate::window::Window;
use crate::wire::{MAX_CONTENT, Reader, content, handshake};

fn ends(suite: Suite, mac_order: MacOrder, cid: &[u8]) -> [Protection; 2] {
    let key = |byte| DirectionKey {
        key: [byte; 16],
        iv: [byte; 4],
        mac: Some(Box::new([byte; 32])),
    };
    let cid = ConnectionId::new(cid).unwrap_or_default();
    let none = ConnectionId::default();
    [(1, 2, cid, none), (2, 1, none, cid)].map(|(write, read, peer_cid, own_cid)| Protection {
        suite,
        mac_order,
        write: key(write),
        read: key(read),
        send_next: 0,
        send_below: MAX_SENT,
        window: Window::default(),
        own_cid,
        peer_cid,
        forged: 0,
    })
}

/// Records of a datagram lie one behind the other within it, none of them opens, and none moves the window; what is
/// sealed opens once and, changed anywhere, not at all.
pub fn records(selector: u8, bytes: &[u8]) {
    let suite = Suite::ALL[usize::from(selector) % Suite::ALL.len()];
    let cid = vec![7; usize::from(selector >> 4) % (MAX_CID + 1)];
    let order = [MacOrder::MacThenEncrypt, MacOrder::EncryptThenMac][usize::from(bytes.len() % 2 == 1)];
    let [mut us, mut peer] = ends(suite, order, &cid);
    let mut buf = Vec::new();
    let (mut count, mut length) = (0, 0);
    for record in Records::new(bytes, cid.len()) {
        count += 1;
        length += 13 + record.cid.len() + record.body.len();
        assert!(peer.open(&record, &mut buf).is_err());
    }
    assert!(count <= 16 && length <= bytes.len());
    assert_eq!(peer.window, Window::default());
    let mut datagram = Vec::new();
    let fits = us.seal(content::APPLICATION_DATA, &[bytes], &mut datagram);
    assert_eq!(fits, bytes.len() <= MAX_CONTENT);
    if !fits {
        return;
    }
    let mut changed = datagram.clone();
    let at = bytes.iter().fold(usize::from(selector), |sum, byte| {
        sum * 31 % 65_521 + usize::from(*byte)
    });
    let at = at % changed.len();
    changed[at] ^= 1 << (selector & 7);
    for record in Records::new(&changed, cid.len()) {
        assert!(peer.open(&record, &mut buf).is_err());
    }
    let mut sealed = Records::new(&datagram, cid.len());
    let record = sealed.next().expect("sealed");
    let opened = peer.open(&record, &mut buf).expect("authentic");
    assert_eq!(buf.get(..opened.length), Some(bytes));
    assert!(peer.open(&record, &mut buf).is_err() && sealed.next().is_none());
}

/// A body as every message that it could be; what can be written again gives the same bytes.
pub fn message(kind: u8, body: &[u8]) {
    match kind {
        handshake::CLIENT_HELLO => {
            if let Ok(hello) = ClientHello::parse(body) {
                assert_eq!(HelloStart::parse(body), Ok(hello.start));
                hello.extensions.limit().ok();
                let suites = Suite::ALL.iter().filter(|suite| hello.offers(**suite));
                assert!(suites.count() <= Suite::ALL.len());
            }
        }
        handshake::SERVER_HELLO => {
            if let Ok(hello) = ServerHello::parse(body)
                && let Some(suite) = hello.suite
            {
                let again = hello.encode(suite);
                let mut hello = hello;
                // What is not written: unknown extensions, and those that only a client sends something in.
                hello.extensions.has_unknown = false;
                hello.extensions.server_name = None;
                hello.extensions.supported_groups = None;
                hello.extensions.signature_algorithms = None;
                assert_eq!(ServerHello::parse(&again), Ok(hello));
            }
        }
        handshake::HELLO_VERIFY_REQUEST => {
            parse_hello_verify_request(body).ok();
        }
        handshake::NEW_SESSION_TICKET => {
            if let Ok((lifetime, ticket)) = parse_new_session_ticket(body) {
                assert_eq!(encode_new_session_ticket(lifetime, ticket), body);
            }
        }
        handshake::CERTIFICATE => {
            parse_chain(body).ok();
            parse_raw_public_key(body).ok();
        }
        handshake::SERVER_KEY_EXCHANGE => {
            parse_hint(body).ok();
            EcdheParams::parse_signed(body).ok();
            EcdheParams::parse_hinted(body).ok();
        }
        handshake::CERTIFICATE_REQUEST => {
            parse_certificate_request(body).ok();
        }
        handshake::CERTIFICATE_VERIFY => {
            parse_certificate_verify(body).ok();
        }
        _ => {
            for (has_psk, has_ecdhe) in [(true, false), (false, true), (true, true)] {
                if let Ok(exchange) = ClientKeyExchange::parse(body, has_psk, has_ecdhe) {
                    assert_eq!(exchange.encode(), body);
                }
            }
        }
    }
}

/// Fragments in any order take no more memory than they may, and a message that comes out has its length.
pub fn fragments(budget: u16, bytes: &[u8]) {
    let mut reassembly = Reassembly::new(0);
    let mut reader = Reader(bytes);
    while let Ok(fragment) = Fragment::read(&mut reader) {
        reassembly.insert(&fragment, budget.into());
        assert!(reassembly.bytes() <= budget.into());
        while let Some(message) = reassembly.pop() {
            assert!(message.body.len() <= usize::from(budget));
        }
    }
}
