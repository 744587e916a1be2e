//! The stateless cookie (RFC 6347 4.2.1).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ring::hmac;
use subtle::ConstantTimeEq;

use crate::hello::HelloStart;
use crate::outbox::Outbox;
use crate::random::Source;
use crate::reassembly;
use crate::record::put_header;
use crate::wire::{VERSION_1_0, content, handshake, put_u16, put_vec8};
use coap::Instant;

/// Bytes of a cookie.
const COOKIE: usize = 16;
/// Body of a `HelloVerifyRequest`.
const BODY: usize = 3 + COOKIE;

/// Secrets of the present and the past period.
#[derive(Debug)]
pub(crate) struct Cookies {
    secrets: [Option<hmac::Key>; 2],
    changed: Instant,
}

impl Cookies {
    pub(crate) fn new() -> Self {
        Self {
            secrets: [None, None],
            changed: Instant::ZERO,
        }
    }

    /// Draws a new secret when the present one has served its time.
    fn rotate(&mut self, random: &mut Source, lifetime: Duration, now: Instant) {
        let age = now.since(self.changed);
        if self.secrets.first().is_some_and(Option::is_some) && age < lifetime {
            return;
        }
        let fresh = random
            .array::<32>()
            .map(|secret| hmac::Key::new(hmac::HMAC_SHA256, &secret));
        let [present, past] = &mut self.secrets;
        *past = present.take().filter(|_| age < lifetime * 2);
        *present = fresh;
        self.changed = now;
    }

    /// The hello carries a cookie of ours for its address and contents.
    pub(crate) fn is_valid(
        &mut self,
        hello: &HelloStart<'_>,
        address: SocketAddr,
        random: &mut Source,
        lifetime: Duration,
        now: Instant,
    ) -> bool {
        if hello.cookie.len() != COOKIE {
            return false;
        }
        self.rotate(random, lifetime, now);
        self.secrets.iter().flatten().any(|secret| {
            let cookie = cookie(secret, hello, address);
            cookie.ct_eq(hello.cookie).into()
        })
    }

    /// Answers a hello, which has the record and message number given, with a cookie.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn request(
        &mut self,
        hello: &HelloStart<'_>,
        address: SocketAddr,
        numbers: (u64, u16),
        random: &mut Source,
        lifetime: Duration,
        now: Instant,
        out: &mut Outbox,
    ) {
        self.rotate(random, lifetime, now);
        let [Some(secret), _] = &self.secrets else { return };
        let cookie = cookie(secret, hello, address);
        let (start, buf) = out.open();
        let length = reassembly::HEADER + BODY;
        put_header(buf, content::HANDSHAKE, VERSION_1_0, numbers.0, length);
        let header = reassembly::header(handshake::HELLO_VERIFY_REQUEST, BODY, numbers.1, 0, BODY);
        buf.extend_from_slice(&header);
        put_u16(buf, VERSION_1_0.into());
        put_vec8(buf, &cookie);
        out.commit(address, start);
    }
}

/// HMAC over the address and what precedes the cookie in the hello.
fn cookie(secret: &hmac::Key, hello: &HelloStart<'_>, address: SocketAddr) -> [u8; COOKIE] {
    let mut context = hmac::Context::with_key(secret);
    match address.ip() {
        IpAddr::V4(ip) => context.update(&ip.octets()),
        IpAddr::V6(ip) => context.update(&ip.octets()),
    }
    context.update(&address.port().to_be_bytes());
    context.update(&hello.version.to_be_bytes());
    context.update(hello.random);
    context.update(hello.session_id);
    let tag = context.sign();
    let mut cookie = [0; COOKIE];
    for (to, from) in cookie.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    cookie
}
