//! Associations that outlive the process: sealed, with reserved record numbers, restored once for each claim.
//!
//! A nonce is IV ‖ epoch ‖ record number, so no number may ever be used twice. An export therefore names a *mark*, and
//! records are sent below it only. Whoever restores has to claim the stored row first, by raising its generation in one
//! durable compare-and-set; each claim stands for 2^16 further numbers above the mark, and the restored
//! association starts at the first of them. Two processes that claim get different numbers, and a copy that is
//! restored without a claim of its own is refused.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use coap::Instant;
use ring::{aead, hmac};
use zeroize::Zeroizing;

use crate::alert::Alert;
use crate::associations::id_of;
use crate::cid::ConnectionId;
use crate::client::Client;
use crate::event::{AssociationId, Identity, Role};
use crate::prf::DirectionKey;
use crate::random::Source;
use crate::record::{MAX_SENT, Protection};
use crate::server::Server;
use crate::session::{RESERVED, Session};
use crate::suite::{MacOrder, Suite};
use crate::window::Window;
use crate::wire::{Reader, put_vec8, put_vec16};

const VERSION: u8 = 1;
const SALT: usize = 16;
const IS_SERVER: u8 = 1;
const EXTENDED_MASTER_SECRET: u8 = 2;
const CLEAN: u8 = 4;
const ENCRYPT_THEN_MAC: u8 = 8;

/// The key that exports are sealed with; it is to be kept apart from them.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey")
    }
}

impl SealingKey {
    /// A key of 32 secret bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// AES-256-GCM under a key of this export alone, so that its nonce may be constant.
    fn cipher(&self, salt: &[u8; SALT]) -> Option<aead::LessSafeKey> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice());
        let mut context = hmac::Context::with_key(&key);
        context.update(b"dtls session");
        context.update(salt);
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, context.sign().as_ref()).ok()?;
        Some(aead::LessSafeKey::new(key))
    }
}

/// What is stored of an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Number of the row; the same for every export of an association.
    pub record: u64,
    /// Generation of the row. It goes up by one with each claim.
    pub generation: u64,
    /// For [`Server::confirm`], once this is durable.
    pub mark: u64,
    /// 150 to 300 bytes.
    pub sealed: Vec<u8>,
}

/// Why an association was not restored. The device will shake hands again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImportError {
    /// Sealed with another key, for another record, damaged, or of an unknown version.
    Unreadable,
    /// The generation is not above the exported one: the row was not claimed.
    Unclaimed,
    /// Restored here before, or its peer has as many associations as it may, or its address another.
    Duplicate,
    /// The keys have sent all they may.
    Exhausted,
    /// There is no room.
    Full,
}

impl ImportError {
    /// The kebab-case word used in logs and above this crate.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Unclaimed => "unclaimed",
            Self::Duplicate => "duplicate",
            Self::Exhausted => "exhausted",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "the stored association cannot be read",
            Self::Unclaimed => "the stored association has not been claimed",
            Self::Duplicate => "the association has been restored before, or its peer or address has others",
            Self::Exhausted => "the keys of the association have sent all the records they may",
            Self::Full => "there is no room for another association",
        })
    }
}

impl std::error::Error for ImportError {}

fn aad(record: u64, generation: u64) -> [u8; 17] {
    let mut aad = [VERSION; 17];
    let (head, tail) = aad.split_at_mut(8);
    head.copy_from_slice(&record.to_be_bytes());
    for (to, from) in tail.iter_mut().zip(generation.to_be_bytes()) {
        *to = from;
    }
    aad
}

pub(crate) fn put_identity(out: &mut Vec<u8>, identity: &Identity) {
    match identity {
        Identity::Psk(identity) => {
            out.push(0);
            put_vec8(out, identity);
        }
        Identity::RawPublicKey(fingerprint) => {
            out.push(1);
            out.extend_from_slice(fingerprint);
        }
        Identity::Certificate { fingerprint, names } => {
            out.push(2);
            out.extend_from_slice(fingerprint);
            let mut list = Vec::new();
            names.iter().for_each(|name| put_vec8(&mut list, name.as_bytes()));
            put_vec16(out, &list);
        }
    }
}

/// A buffer for secrets beside an identity. What a vector leaves behind when it grows is not zeroized: this one has
/// room from the start.
pub(crate) fn roomy(others: usize, identity: &Identity) -> Zeroizing<Vec<u8>> {
    let identity = match identity {
        Identity::Psk(name) => name.len(),
        Identity::RawPublicKey(fingerprint) => fingerprint.len(),
        Identity::Certificate { fingerprint, names } => {
            fingerprint.len() + names.iter().map(|name| 1 + name.len()).sum::<usize>()
        }
    };
    Zeroizing::new(Vec::with_capacity(others + identity))
}

pub(crate) fn read_identity(reader: &mut Reader<'_>) -> Result<Identity, Alert> {
    Ok(match reader.u8()? {
        0 => Identity::Psk(reader.vec8()?.into()),
        1 => Identity::RawPublicKey(reader.array()?),
        2 => {
            let fingerprint = reader.array()?;
            let mut list = Reader(reader.vec16()?);
            let mut names = Vec::new();
            while !list.is_empty() {
                let name = std::str::from_utf8(list.vec8()?).map_err(|_| Alert::DecodeError)?;
                names.push(Box::from(name));
            }
            Identity::Certificate {
                fingerprint,
                names: names.into(),
            }
        }
        _ => return Err(Alert::DecodeError),
    })
}

impl Session {
    /// Reserves numbers and seals, under the record `new` if it has none yet; a clean export is the last thing done
    /// with a session.
    fn export(&mut self, key: &SealingKey, new: u64, random: &mut Source, clean: bool) -> Option<Exported> {
        if self.record == 0 {
            self.record = new;
        }
        let reserved = if clean { 0 } else { RESERVED };
        let mark = (self.keys.send_next + reserved).min(MAX_SENT);
        let salt = random.array::<SALT>()?;
        // Zeroized if it can't be sealed.
        let mut sealed = roomy(384, &self.identity);
        sealed.push(VERSION);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&self.generation.to_be_bytes());
        let start = sealed.len();
        self.write(mark, clean, &mut sealed);
        let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
        let aad = aead::Aad::from(aad(self.record, self.generation));
        let tag = key
            .cipher(&salt)?
            .seal_in_place_separate_tag(nonce, aad, sealed.get_mut(start..)?)
            .ok()?;
        sealed.extend_from_slice(tag.as_ref());
        // Once this may be stored, nothing above its mark may be sent before the next is.
        self.exported = mark;
        self.keys.send_below = self.keys.send_below.min(mark);
        Some(Exported {
            record: self.record,
            generation: self.generation,
            mark,
            sealed: std::mem::take(&mut *sealed),
        })
    }

    fn write(&self, mark: u64, clean: bool, out: &mut Vec<u8>) {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let keys = &self.keys;
        out.push(
            flag(self.role == Role::Server, IS_SERVER)
                | flag(self.has_extended_master_secret, EXTENDED_MASTER_SECRET)
                | flag(clean && self.fresh, CLEAN)
                | flag(keys.mac_order == MacOrder::EncryptThenMac, ENCRYPT_THEN_MAC),
        );
        out.extend_from_slice(&keys.suite.code().to_be_bytes());
        for number in [mark, keys.window.next, keys.window.seen] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        for direction in [&keys.write, &keys.read] {
            out.extend_from_slice(&direction.key);
            out.extend_from_slice(&direction.iv);
            if let Some(mac) = direction.mac.as_deref() {
                out.extend_from_slice(mac);
            }
        }
        put_vec8(out, keys.own_cid.as_bytes());
        put_vec8(out, keys.peer_cid.as_bytes());
        out.extend_from_slice(&keys.forged.to_be_bytes());
        for limit in [self.send_limit, self.receive_limit] {
            out.extend_from_slice(&limit.to_be_bytes());
        }
        match self.address.ip() {
            IpAddr::V4(ip) => put_vec8(out, &ip.octets()),
            IpAddr::V6(ip) => put_vec8(out, &ip.octets()),
        }
        out.extend_from_slice(&self.address.port().to_be_bytes());
        put_identity(out, &self.identity);
    }

    fn read(state: &[u8], mut generations: u64, now: Instant) -> Result<Self, ImportError> {
        let mut session = Self::read_fields(&mut Reader(state), now).map_err(|_| ImportError::Unreadable)?;
        generations -= 1;
        let start = generations
            .checked_mul(RESERVED)
            .and_then(|further| further.checked_add(session.keys.send_next))
            .filter(|start| *start < MAX_SENT)
            .ok_or(ImportError::Exhausted)?;
        // Whoever claimed it before may have taken records since, so the window is exact for the first claim only.
        session.fresh &= generations == 0;
        session.keys.send_next = start;
        session.keys.send_below = (start + RESERVED).min(MAX_SENT);
        session.exported = session.keys.send_below;
        Ok(session)
    }

    fn read_fields(reader: &mut Reader<'_>, now: Instant) -> Result<Self, Alert> {
        let flags = reader.u8()?;
        if flags & !(IS_SERVER | EXTENDED_MASTER_SECRET | CLEAN | ENCRYPT_THEN_MAC) != 0 {
            return Err(Alert::DecodeError);
        }
        let suite = Suite::from_code(reader.u16()?).ok_or(Alert::DecodeError)?;
        let (mark, next, seen) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let direction = |reader: &mut Reader<'_>| {
            Ok::<_, Alert>(DirectionKey {
                key: reader.array()?,
                iv: reader.array()?,
                mac: if suite.is_cbc() {
                    Some(Box::new(reader.array()?))
                } else {
                    None
                },
            })
        };
        let (write, read) = (direction(reader)?, direction(reader)?);
        let cid = |reader: &mut Reader<'_>| ConnectionId::new(reader.vec8()?).ok_or(Alert::DecodeError);
        let (own_cid, peer_cid) = (cid(reader)?, cid(reader)?);
        let forged = u32::from_be_bytes(reader.array()?);
        let (send_limit, receive_limit) = (reader.u16()?, reader.u16()?);
        let ip = reader.vec8()?;
        let ip = if let Ok(ip) = <[u8; 4]>::try_from(ip) {
            IpAddr::V4(Ipv4Addr::from(ip))
        } else {
            let ip = <[u8; 16]>::try_from(ip).map_err(|_| Alert::DecodeError)?;
            IpAddr::V6(Ipv6Addr::from(ip))
        };
        let address = SocketAddr::new(ip, reader.u16()?);
        let identity = Arc::new(read_identity(reader)?);
        reader.end()?;
        if next >= 1 << 48 || mark > MAX_SENT {
            return Err(Alert::DecodeError);
        }
        Ok(Self {
            keys: Protection {
                suite,
                mac_order: if flags & ENCRYPT_THEN_MAC == 0 {
                    MacOrder::MacThenEncrypt
                } else {
                    MacOrder::EncryptThenMac
                },
                write,
                read,
                send_next: mark,
                send_below: mark,
                window: Window { next, seen },
                own_cid,
                peer_cid,
                forged,
            },
            address,
            identity,
            serial: 0,
            older: None,
            send_limit,
            receive_limit,
            role: if flags & IS_SERVER == 0 {
                Role::Client
            } else {
                Role::Server
            },
            has_extended_master_secret: flags & EXTENDED_MASTER_SECRET != 0,
            fresh: flags & CLEAN != 0,
            reserve_told: false,
            exported: mark,
            record: 0,
            generation: 0,
            last_seen: now,
            linger: None,
        })
    }

    /// Opens what was sealed under `record`, for the claim that raised the row to `generation`.
    fn import(
        sealed: &[u8],
        record: u64,
        generation: u64,
        key: &SealingKey,
        now: Instant,
    ) -> Result<Self, ImportError> {
        let unreadable = |_| ImportError::Unreadable;
        let mut reader = Reader(sealed);
        if reader.u8().map_err(unreadable)? != VERSION {
            return Err(ImportError::Unreadable);
        }
        let salt = reader.array::<SALT>().map_err(unreadable)?;
        let exported = reader.u64().map_err(unreadable)?;
        let mut state = Zeroizing::new(reader.0.to_vec());
        let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
        let cipher = key.cipher(&salt).ok_or(ImportError::Unreadable)?;
        let state = cipher
            .open_in_place(nonce, aead::Aad::from(aad(record, exported)), &mut state)
            .map_err(|_| ImportError::Unreadable)?;
        let generations = generation
            .checked_sub(exported)
            .filter(|generations| *generations > 0)
            .ok_or(ImportError::Unclaimed)?;
        let mut session = Self::read(state, generations, now)?;
        session.record = record;
        session.generation = generation;
        Ok(session)
    }

    fn confirm(&mut self, mark: u64) {
        self.keys.send_below = self.keys.send_below.max(mark.min(self.exported));
        self.reserve_told = false;
    }

    fn confirm_fresh(&mut self, sequence: u64) {
        self.keys.window.raise(sequence);
        self.fresh = true;
    }
}

impl Server {
    /// Exports an association that goes on. Store it, then [`Server::confirm`] its mark; until then it sends no more
    /// than the export before allows. `None` when there is none.
    pub fn export(&mut self, association: AssociationId, key: &SealingKey) -> Option<Exported> {
        self.sealed(association, key, false)
    }

    /// Exports an association with its exact replay window and takes it out, without a word to the peer: for a clean
    /// stop.
    pub fn suspend(&mut self, association: AssociationId, key: &SealingKey) -> Option<Exported> {
        let exported = self.sealed(association, key, true)?;
        let (index, _) = self.find(association)?;
        self.take_out(index);
        Some(exported)
    }

    fn sealed(&mut self, association: AssociationId, key: &SealingKey, clean: bool) -> Option<Exported> {
        let new = self.new_record()?;
        let (index, _) = self.find(association)?;
        let session = self.sessions.get_mut(index as usize)?;
        let exported = session.export(key, new, &mut self.random, clean)?;
        if exported.record == new {
            self.last_record = new;
        }
        Some(exported)
    }

    /// A number for the next association that is exported. The first is random, so that two processes don't meet; the
    /// others follow, so that what is stored together lies together in the store's index.
    fn new_record(&mut self) -> Option<u64> {
        let mut record = match self.last_record {
            0 => u64::from_be_bytes(self.random.array()?),
            last => last.wrapping_add(1),
        };
        while record == 0 || self.restored.contains_key(&record) {
            record = record.wrapping_add(1);
        }
        Some(record)
    }

    /// The export with this mark is durable.
    pub fn confirm(&mut self, association: AssociationId, mark: u64) {
        if let Some((_, session)) = self.find(association) {
            session.confirm(mark);
        }
    }

    /// Restores an association; `generation` is what the caller's claim has raised the stored row to.
    ///
    /// # Errors
    /// Why it was not restored.
    pub fn import(
        &mut self,
        sealed: &[u8],
        record: u64,
        generation: u64,
        key: &SealingKey,
        now: Instant,
    ) -> Result<AssociationId, ImportError> {
        if self
            .restored
            .get(&record)
            .is_some_and(|before| *before >= generation)
        {
            return Err(ImportError::Duplicate);
        }
        let mut session = Session::import(sealed, record, generation, key, now)?;
        let cid = session.keys.own_cid;
        if session.role == Role::Client || !(cid.is_empty() || cid.len() == self.config.cid_length()) {
            return Err(ImportError::Unreadable);
        }
        let has_address = cid.is_empty() && self.has_address(session.address);
        let others = self.associations_of(&session.identity).count();
        let is_full = others >= self.config.max_associations_per_identity.max(1);
        if is_full || self.has_cid(&cid) || has_address {
            return Err(ImportError::Duplicate);
        }
        if self.sessions.len() >= self.config.max_sessions || self.restored.len() >= self.config.max_sessions
        {
            return Err(ImportError::Full);
        }
        self.restored.insert(record, generation);
        session.serial = self.next_serial();
        Ok(self.insert(session, now))
    }

    /// The peer has answered, by the record with this number, what was asked after the restore: what it sends is no
    /// replay, and nothing up to that record is taken any more.
    pub fn confirm_fresh(&mut self, association: AssociationId, sequence: u64) {
        if let Some((_, session)) = self.find(association) {
            session.confirm_fresh(sequence);
        }
    }
}

impl Client {
    /// Exports the association with its exact replay window and takes it out, for a device that sleeps.
    pub fn suspend(&mut self, key: &SealingKey) -> Option<Exported> {
        let new = u64::from_be_bytes(self.random.array()?);
        let exported = self
            .session
            .as_deref_mut()?
            .export(key, new, &mut self.random, true)?;
        self.session = None;
        Some(exported)
    }

    /// Restores the association; as [`Server::import`].
    ///
    /// # Errors
    /// Why it was not restored.
    pub fn import(
        &mut self,
        sealed: &[u8],
        record: u64,
        generation: u64,
        key: &SealingKey,
        now: Instant,
    ) -> Result<AssociationId, ImportError> {
        if self.session.is_some() || self.restored.is_some_and(|before| before == (record, generation)) {
            return Err(ImportError::Duplicate);
        }
        let mut session = Session::import(sealed, record, generation, key, now)?;
        if session.role == Role::Server {
            return Err(ImportError::Unreadable);
        }
        self.restored = Some((record, generation));
        session.serial = self.next_serial();
        let id = id_of(0, session.serial);
        self.session = Some(Box::new(session));
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_written_where_there_is_room_for_the_longest_identity() {
        let names = (0..8_u8).map(|_| "x".repeat(253).into()).collect();
        for identity in [
            Identity::Psk([0; 128].into()),
            Identity::RawPublicKey([0; 32]),
            Identity::Certificate {
                fingerprint: [0; 32],
                names,
            },
        ] {
            let mut buffer = roomy(3, &identity);
            let room = buffer.capacity();
            put_identity(&mut buffer, &identity);
            assert_eq!(buffer.capacity(), room, "{identity:?}");
        }
    }
}
