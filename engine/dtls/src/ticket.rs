//! Resumption by tickets (RFC 5077): the server keeps nothing but the keys that tickets are sealed with, in memory
//! only; what a client keeps is here as well.
//!
//! A ticket is bound to its credential: it opens nothing once the pre-shared key is another or the certificate has
//! expired, and the caller is asked about the identity again. Only associations with the extended master secret have
//! tickets (RFC 7627 5.3).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap::Instant;
use ring::aead;
use zeroize::Zeroizing;

use crate::event::{Identity, PskKeys};
use crate::export::{put_identity, read_identity, roomy};
use crate::prf::{Master, sha256};
use crate::random::Source;
use crate::suite::Suite;
use crate::wire::Reader;

const NONCE: usize = 12;
/// Longest ticket given out: it comes back in a `ClientHello`, which has its own bound.
const MAX_TICKET: usize = 768;
/// Longest ticket of a server that a client keeps.
pub(crate) const MAX_KEPT: usize = 1400;

/// Tells whether something is the same as before.
pub(crate) type Check = [u8; 16];

pub(crate) fn check(bytes: &[u8]) -> Check {
    let mut check = [0; 16];
    for (to, from) in check.iter_mut().zip(sha256(bytes)) {
        *to = from;
    }
    check
}

/// What a ticket holds.
pub(crate) struct Ticket {
    pub(crate) suite: Suite,
    pub(crate) master: Master,
    pub(crate) identity: Arc<Identity>,
    /// Of the pre-shared key; zeros without one.
    pub(crate) key: Check,
    /// Of the server name asked for (RFC 6066 3) and the fragment length agreed (RFC 6066 4), which must be the same.
    pub(crate) terms: Check,
    pub(crate) end: Instant,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

impl Ticket {
    /// One of the identity's keys is the one that the ticket was earned with.
    pub(crate) fn is_of(&self, keys: &PskKeys) -> bool {
        let former = keys.former.iter();
        std::iter::once(&keys.current)
            .chain(former)
            .any(|key| check(key) == self.key)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.suite.code().to_be_bytes());
        out.extend_from_slice(&self.end.as_micros().to_be_bytes());
        out.extend_from_slice(self.master.as_slice());
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.terms);
        put_identity(out, &self.identity);
    }

    fn read(state: &[u8]) -> Option<Self> {
        let mut reader = Reader(state);
        let suite = Suite::from_code(reader.u16().ok()?)?;
        let end = Instant::from_micros(reader.u64().ok()?);
        let ticket = Self {
            suite,
            master: Zeroizing::new(reader.array().ok()?),
            key: reader.array().ok()?,
            terms: reader.array().ok()?,
            identity: Arc::new(read_identity(&mut reader).ok()?),
            end,
        };
        reader.end().ok()?;
        Some(ticket)
    }
}

/// The keys of the present and the past period: a ticket is good for its lifetime wherever in a period it was made.
pub(crate) struct Tickets {
    keys: [Option<aead::LessSafeKey>; 2],
    changed: Instant,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    pub(crate) const fn new() -> Self {
        Self {
            keys: [None, None],
            changed: Instant::ZERO,
        }
    }

    fn rotate(&mut self, random: &mut Source, lifetime: Duration, now: Instant) {
        let age = now.since(self.changed);
        if self.keys.first().is_some_and(Option::is_some) && age < lifetime {
            return;
        }
        let fresh = random.array::<32>().map(Zeroizing::new);
        let fresh = fresh.and_then(|key| aead::UnboundKey::new(&aead::AES_256_GCM, key.as_slice()).ok());
        let [present, past] = &mut self.keys;
        *past = present.take().filter(|_| age < lifetime.saturating_mul(2));
        *present = fresh.map(aead::LessSafeKey::new);
        self.changed = now;
    }

    /// Nonce, sealed state, tag; `None` when that is too long for a hello.
    pub(crate) fn seal(
        &mut self,
        ticket: &Ticket,
        random: &mut Source,
        lifetime: Duration,
        now: Instant,
    ) -> Option<Vec<u8>> {
        self.rotate(random, lifetime, now);
        let [Some(key), _] = &self.keys else { return None };
        let nonce = random.array::<NONCE>()?;
        // Zeroized if it can't be sealed.
        let mut sealed = roomy(256, &ticket.identity);
        sealed.extend_from_slice(&nonce);
        ticket.write(&mut sealed);
        let state = sealed.get_mut(NONCE..)?;
        let sealing = aead::Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(sealing, aead::Aad::empty(), state);
        sealed.extend_from_slice(tag.ok()?.as_ref());
        (sealed.len() <= MAX_TICKET).then(|| std::mem::take(&mut *sealed))
    }

    /// What a ticket of ours holds that has not come to its end.
    pub(crate) fn open(
        &mut self,
        sealed: &[u8],
        random: &mut Source,
        lifetime: Duration,
        now: Instant,
    ) -> Option<Ticket> {
        if sealed.len() > MAX_TICKET {
            return None;
        }
        self.rotate(random, lifetime, now);
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let ticket = self.keys.iter().flatten().find_map(|key| {
            let mut state = Zeroizing::new(sealed.to_vec());
            let nonce = aead::Nonce::assume_unique_for_key(*nonce);
            let state = key.open_in_place(nonce, aead::Aad::empty(), &mut state).ok()?;
            Ticket::read(state)
        })?;
        (now < ticket.end).then_some(ticket)
    }
}

/// What a client keeps to resume with.
pub(crate) struct Resumable {
    pub(crate) server: SocketAddr,
    pub(crate) ticket: Vec<u8>,
    pub(crate) suite: Suite,
    pub(crate) master: Master,
    pub(crate) identity: Arc<Identity>,
    pub(crate) end: Instant,
}

impl fmt::Debug for Resumable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumable")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}
