//! Records (RFC 6347 4.1) and their protection, plain and with connection ids (RFC 9146 4, 5).

use std::fmt;

use crate::aead;
use crate::alert::Alert;
use crate::cbc;
use crate::cid::ConnectionId;
use crate::prf::DirectionKey;
use crate::suite::{MacOrder, Suite};
use crate::window::Window;
use crate::wire::{MAX_CONTENT, Reader, VERSION, VERSION_1_0, content, put_u16};

/// More records in one datagram are not looked at.
const MAX_RECORDS: usize = 16;
/// What a protected record may be longer than its content (RFC 5246 6.2.3).
const MAX_EXPANSION: usize = 1024;
/// Explicit part of the nonce.
const EXPLICIT: usize = 8;
/// Keys are retired after this many records sent: the confidentiality figure of AES-CCM in RFC 9147 4.5.3.
pub(crate) const MAX_SENT: u64 = 1 << 23;
/// Keys are retired after this many forged records: odds of 2^-44 with the 8-byte tag.
pub(crate) const MAX_FORGED: u32 = 1 << 20;

/// A record as it stands in the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub(crate) kind: u8,
    pub(crate) version: u16,
    pub(crate) epoch: u16,
    /// 48 bits.
    pub(crate) sequence: u64,
    pub(crate) cid: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// The records of a datagram; ends at the first that cannot be a record.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: Reader<'a>,
    cid_length: usize,
    left: usize,
}

impl<'a> Records<'a> {
    /// `cid_length`: length of the connection ids that we give out, as the record does not tell it.
    #[must_use]
    pub fn new(datagram: &'a [u8], cid_length: usize) -> Self {
        Self {
            rest: Reader(datagram),
            cid_length,
            left: MAX_RECORDS,
        }
    }

    fn read(&mut self) -> Result<Record<'a>, Alert> {
        let kind = self.rest.u8()?;
        let version = self.rest.u16()?;
        let number = self.rest.u64()?;
        let cid = if kind == content::TLS12_CID {
            self.rest.take(self.cid_length)?
        } else {
            &[]
        };
        let body = self.rest.vec16()?;
        let known = content::CHANGE_CIPHER_SPEC..=content::TLS12_CID;
        if !known.contains(&kind)
            || !matches!(version, VERSION | VERSION_1_0)
            || body.len() > MAX_CONTENT + MAX_EXPANSION
        {
            return Err(Alert::DecodeError);
        }
        Ok(Record {
            kind,
            version,
            epoch: u16::try_from(number >> 48).unwrap_or_default(),
            sequence: number & 0xffff_ffff_ffff,
            cid,
            body,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        self.left = self.left.checked_sub(1)?;
        let record = self.read().ok();
        if record.is_none() {
            self.left = 0;
        }
        record
    }
}

/// Writes the header of a record of epoch 0; the body of `length` bytes is to follow.
pub(crate) fn put_header(out: &mut Vec<u8>, kind: u8, version: u16, sequence: u64, length: usize) {
    out.push(kind);
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&(sequence & 0xffff_ffff_ffff).to_be_bytes());
    put_u16(out, length);
}

/// Bytes of a record's header without connection id.
pub(crate) const HEADER: usize = 13;

/// Why a record was not taken; all of them are silent on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not of this epoch, connection id or form.
    Foreign,
    /// Seen before, or too old to tell.
    Replayed,
    /// Does not authenticate.
    Forged,
    /// Authentic but malformed.
    Malformed,
}

/// An authentic record; its content is the first `length` bytes of the buffer given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) kind: u8,
    pub(crate) length: usize,
    pub(crate) sequence: u64,
    /// Newer than every record before it: its source is the peer's address (RFC 9146 6).
    pub(crate) newest: bool,
}

/// Keys and counters of epoch 1.
#[derive(Clone)]
pub(crate) struct Protection {
    pub(crate) suite: Suite,
    /// Of a suite with CBC.
    pub(crate) mac_order: MacOrder,
    pub(crate) write: DirectionKey,
    pub(crate) read: DirectionKey,
    pub(crate) send_next: u64,
    /// Records are sent below this number only: what a stored export has reserved, or all that the keys may.
    pub(crate) send_below: u64,
    pub(crate) window: Window,
    /// What records to us carry; none when empty.
    pub(crate) own_cid: ConnectionId,
    /// What records to the peer carry; none when empty.
    pub(crate) peer_cid: ConnectionId,
    /// Records that did not authenticate.
    pub(crate) forged: u32,
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protection")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

impl Protection {
    fn cbc<'a>(&self, direction: &'a DirectionKey) -> Option<cbc::Keys<'a>> {
        Some(cbc::Keys {
            cipher: &direction.key,
            mac: direction.mac.as_deref()?,
            encrypt_then_mac: self.mac_order == MacOrder::EncryptThenMac,
        })
    }

    /// Bytes that a protected record is longer than its content; the most with CBC.
    pub(crate) fn overhead(&self) -> usize {
        let cid = self.peer_cid.len();
        let cipher = self.suite.aead();
        let cipher = cipher.map_or(cbc::OVERHEAD, |aead| EXPLICIT + aead.tag_length());
        HEADER + cipher + cid + usize::from(cid > 0)
    }

    /// Appends a record to `out`; false when all the numbers are used or the content is too long.
    pub(crate) fn seal(&mut self, kind: u8, payload: &[&[u8]], out: &mut Vec<u8>) -> bool {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        if self.send_next >= self.send_below.min(MAX_SENT) || length > MAX_CONTENT {
            return false;
        }
        let sequence = self.send_next;
        self.send_next += 1;
        let number = 1 << 48 | sequence;
        let with_cid = !self.peer_cid.is_empty();
        let inner = length + usize::from(with_cid);
        out.push(if with_cid { content::TLS12_CID } else { kind });
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(self.peer_cid.as_bytes());
        let aead = self.suite.aead();
        let cbc = self.cbc(&self.write);
        let body = match (aead, cbc) {
            (Some(aead), _) => EXPLICIT + inner + aead.tag_length(),
            (None, Some(keys)) => cbc::body_length(inner, keys.encrypt_then_mac),
            (None, None) => return false,
        };
        put_u16(out, body);
        if aead.is_some() {
            out.extend_from_slice(&number.to_be_bytes());
        }
        let start = out.len();
        for part in payload {
            out.extend_from_slice(part);
        }
        if with_cid {
            out.push(kind);
        }
        let header = |length| Aad::new(kind, number, self.peer_cid.as_bytes(), length);
        if let Some(aead) = aead {
            let nonce = nonce(self.write.iv, number.to_be_bytes());
            return aead::seal(aead, &self.write.key, &nonce, header(inner).as_ref(), out, start);
        }
        if let Some(keys) = cbc {
            cbc::seal(keys, header, number, out, start);
        }
        true
    }

    /// Decrypts into `buf`; the length of what comes out.
    fn decrypt(&self, record: &Record<'_>, buf: &mut Vec<u8>) -> Result<usize, Refused> {
        let number = 1 << 48 | record.sequence;
        let header = |length| Aad::new(record.kind, number, record.cid, length);
        let Some(aead) = self.suite.aead() else {
            let keys = self.cbc(&self.read).ok_or(Refused::Foreign)?;
            return cbc::open(keys, header, record.body, buf).ok_or(Refused::Forged);
        };
        let tag = aead.tag_length();
        let (explicit, sealed) = record
            .body
            .split_first_chunk::<EXPLICIT>()
            .filter(|(_, sealed)| sealed.len() >= tag)
            .ok_or(Refused::Foreign)?;
        buf.clear();
        buf.extend_from_slice(sealed);
        let nonce = nonce(self.read.iv, *explicit);
        let header = header(sealed.len() - tag);
        aead::open(aead, &self.read.key, &nonce, header.as_ref(), buf).ok_or(Refused::Forged)
    }

    /// Replay check, decryption, and only then the window (RFC 6347 4.1.2.6).
    pub(crate) fn open(&mut self, record: &Record<'_>, buf: &mut Vec<u8>) -> Result<Opened, Refused> {
        let with_cid = record.kind == content::TLS12_CID;
        if record.epoch != 1
            || record.version != VERSION
            || with_cid == self.own_cid.is_empty()
            || record.cid != self.own_cid.as_bytes()
        {
            return Err(Refused::Foreign);
        }
        if !self.window.admits(record.sequence) {
            return Err(Refused::Replayed);
        }
        let length = self.decrypt(record, buf).inspect_err(|refused| {
            if *refused == Refused::Forged {
                self.forged = self.forged.saturating_add(1);
            }
        })?;
        let newest = self.window.is_newest(record.sequence);
        self.window.note(record.sequence);
        let (kind, length) = if with_cid {
            let inner = buf.get(..length).unwrap_or_default();
            let end = inner
                .iter()
                .rposition(|byte| *byte != 0)
                .ok_or(Refused::Malformed)?;
            (inner.get(end).copied().unwrap_or_default(), end)
        } else {
            (record.kind, length)
        };
        if length > MAX_CONTENT {
            return Err(Refused::Malformed);
        }
        Ok(Opened {
            kind,
            length,
            sequence: record.sequence,
            newest,
        })
    }
}

fn nonce(iv: [u8; 4], explicit: [u8; EXPLICIT]) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (head, tail) = nonce.split_at_mut(4);
    head.copy_from_slice(&iv);
    tail.copy_from_slice(&explicit);
    nonce
}

/// Additional data: RFC 5246 6.2.3.3, or RFC 9146 5.3 for records with a connection id.
struct Aad {
    bytes: [u8; 23 + crate::cid::MAX_CID],
    length: usize,
}

impl Aad {
    fn new(kind: u8, number: u64, cid: &[u8], length: usize) -> Self {
        let mut aad = Self {
            bytes: [0; 23 + crate::cid::MAX_CID],
            length: 0,
        };
        let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        let version = VERSION.to_be_bytes();
        if cid.is_empty() {
            aad.put(&number.to_be_bytes());
            aad.put(&[kind]);
            aad.put(&version);
        } else {
            aad.put(&[0xff; 8]);
            let cid_length = u8::try_from(cid.len()).unwrap_or(u8::MAX);
            aad.put(&[content::TLS12_CID, cid_length, content::TLS12_CID]);
            aad.put(&version);
            aad.put(&number.to_be_bytes());
            aad.put(cid);
        }
        aad.put(&length);
        aad
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if let Some(to) = self.bytes.get_mut(self.length..end) {
            to.copy_from_slice(bytes);
            self.length = end;
        }
    }
}

impl AsRef<[u8]> for Aad {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(suite: Suite, mac_order: MacOrder, to_peer: &[u8], to_us: &[u8]) -> [Protection; 2] {
        let key = |byte| DirectionKey {
            key: [byte; 16],
            iv: [byte; 4],
            mac: Some(Box::new([byte; 32])),
        };
        let cid = |bytes: &[u8]| ConnectionId::new(bytes).expect("short");
        [(1, 2, to_peer, to_us), (2, 1, to_us, to_peer)].map(|(write, read, peer, own)| Protection {
            suite,
            mac_order,
            write: key(write),
            read: key(read),
            send_next: 0,
            send_below: MAX_SENT,
            window: Window::default(),
            own_cid: cid(own),
            peer_cid: cid(peer),
            forged: 0,
        })
    }

    fn first(datagram: &[u8], cid_length: usize) -> Record<'_> {
        Records::new(datagram, cid_length).next().expect("one record")
    }

    #[test]
    fn records_pass_once_with_and_without_connection_ids_of_differing_length() {
        let cbc = (Suite::PskCbc, MacOrder::EncryptThenMac);
        let all = Suite::ALL.iter().map(|suite| (*suite, MacOrder::MacThenEncrypt));
        for (suite, order) in all.chain([cbc]) {
            for (to_peer, to_us) in [
                ("", ""),
                ("x", ""),
                ("", "12345678"),
                ("12345678901234567890", "abc"),
            ] {
                let [mut us, mut peer] = pair(suite, order, to_peer.as_bytes(), to_us.as_bytes());
                let mut datagram = Vec::new();
                assert!(us.seal(content::APPLICATION_DATA, &[b"hel", b"lo"], &mut datagram));
                let most = us.overhead() + 5;
                assert!(datagram.len() == most || suite.is_cbc() && datagram.len() < most);
                let record = first(&datagram, to_peer.len());
                let mut buf = Vec::new();
                let opened = peer.open(&record, &mut buf).expect("authentic");
                assert_eq!((opened.kind, &buf[..opened.length]), (23, b"hello".as_slice()));
                assert!(opened.newest);
                assert_eq!(peer.open(&record, &mut buf), Err(Refused::Replayed));
                assert_eq!(us.open(&record, &mut buf).ok(), None);
            }
        }
    }

    #[test]
    fn a_record_of_which_any_bit_is_changed_is_forged() {
        for (suite, order) in [
            (Suite::PskCcm8, MacOrder::MacThenEncrypt),
            (Suite::PskCbc, MacOrder::MacThenEncrypt),
            (Suite::PskCbc, MacOrder::EncryptThenMac),
        ] {
            let [mut us, mut peer] = pair(suite, order, b"", b"");
            let mut datagram = Vec::new();
            let mut buf = Vec::new();
            assert!(us.seal(content::APPLICATION_DATA, &[b"hello"], &mut datagram));
            for bit in (8 * HEADER)..(8 * datagram.len()) {
                let mut bad = datagram.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let opened = peer.open(&first(&bad, 0), &mut buf);
                assert_eq!(opened, Err(Refused::Forged), "{suite:?} {order:?} {bit}");
            }
            for length in HEADER..datagram.len() {
                let mut bad = datagram[..length].to_vec();
                let body = u16::try_from(length - HEADER).expect("short").to_be_bytes();
                bad[11..13].copy_from_slice(&body);
                assert!(peer.open(&first(&bad, 0), &mut buf).is_err());
            }
            assert!(peer.open(&first(&datagram, 0), &mut buf).is_ok());
        }
    }

    #[test]
    fn a_forged_record_moves_no_window_and_is_counted() {
        let [mut us, mut peer] = pair(Suite::PskCcm8, MacOrder::default(), b"", b"");
        let mut datagram = Vec::new();
        assert!(us.seal(content::APPLICATION_DATA, &[b"x"], &mut datagram));
        let mut forged = datagram.clone();
        forged[5..11].copy_from_slice(&[0xff; 6]);
        let mut buf = Vec::new();
        assert_eq!(peer.open(&first(&forged, 0), &mut buf), Err(Refused::Forged));
        assert_eq!((peer.forged, peer.window), (1, Window::default()));
        assert!(peer.open(&first(&datagram, 0), &mut buf).is_ok());
    }

    #[test]
    fn inner_padding_is_stripped_up_to_the_limit_and_all_zeros_is_malformed() {
        let longest = [b"hi\x17".as_slice(), &vec![0; MAX_CONTENT - 2]].concat();
        let [mut us, mut peer] = pair(Suite::PskCcm8, MacOrder::default(), b"c", b"");
        let mut buf = Vec::new();
        for (inner, expected) in [
            (b"hi\x17\0\0\0".as_slice(), Ok(2)),
            (&longest, Ok(2)),
            (&[0; 9], Err(Refused::Malformed)),
            (&vec![0x17; MAX_CONTENT + 2], Err(Refused::Malformed)),
        ] {
            let number = 1 << 48 | us.send_next;
            us.send_next += 1;
            let mut body = inner.to_vec();
            let aad = Aad::new(25, number, b"c", inner.len());
            let nonce = nonce(us.write.iv, number.to_be_bytes());
            assert!(aead::seal(
                crate::suite::Aead::Ccm8,
                &us.write.key,
                &nonce,
                aad.as_ref(),
                &mut body,
                0
            ));
            let explicit = number.to_be_bytes();
            let body = [explicit.as_slice(), &body].concat();
            let record = Record {
                kind: 25,
                version: VERSION,
                epoch: 1,
                sequence: number & 0xffff,
                cid: b"c",
                body: &body,
            };
            assert_eq!(peer.open(&record, &mut buf).map(|opened| opened.length), expected);
        }
    }

    #[test]
    fn keys_stop_sending_at_their_limit() {
        let [mut us, _] = pair(Suite::PskCcm8, MacOrder::default(), b"", b"");
        us.send_next = MAX_SENT - 1;
        assert!(us.seal(content::APPLICATION_DATA, &[], &mut Vec::new()));
        assert!(!us.seal(content::APPLICATION_DATA, &[], &mut Vec::new()));
    }

    #[test]
    fn a_truncated_or_unknown_record_ends_the_datagram() {
        let mut datagram = Vec::new();
        put_header(&mut datagram, content::ALERT, VERSION, 7, 0);
        put_header(&mut datagram, content::ALERT, VERSION, 8, 2);
        assert_eq!(Records::new(&datagram, 0).count(), 1);
        let mut other = vec![99];
        other.extend_from_slice(&datagram);
        assert_eq!(Records::new(&other, 0).count(), 0);
        let many: Vec<u8> = datagram[..HEADER].repeat(40);
        assert_eq!(Records::new(&many, 0).count(), MAX_RECORDS);
    }
}
