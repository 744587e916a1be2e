//! An established association.

use std::net::SocketAddr;
use std::sync::Arc;

use coap::Instant;

use crate::alert::Alert;
use crate::config::Config;
use crate::event::{Identity, Reason, Role, SendError};
use crate::flight::Flight;
use crate::handshake::Core;
use crate::outbox::Outbox;
use crate::reassembly::Fragment;
use crate::record::{MAX_FORGED, MAX_SENT, Protection, Record, Refused};
use crate::wire::{MAX_CONTENT, Reader, content, handshake};

/// Record numbers that one export reserves.
pub(crate) const RESERVED: u64 = 1 << 16;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// A final flight of ours that the peer may ask for again (RFC 6347 4.2.4).
#[derive(Clone, Debug)]
pub(crate) struct Linger {
    flight: Flight,
    /// Number of the peer's Finished.
    finished: u16,
}

#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) keys: Protection,
    pub(crate) address: SocketAddr,
    pub(crate) identity: Arc<Identity>,
    /// Tells it from others in the same place of the slab.
    pub(crate) serial: u32,
    /// Place of the association before it of the same identity.
    pub(crate) older: Option<u32>,
    /// Content that the peer takes, and that we take.
    pub(crate) send_limit: u16,
    pub(crate) receive_limit: u16,
    pub(crate) role: Role,
    pub(crate) has_extended_master_secret: bool,
    /// The replay window is exact.
    pub(crate) fresh: bool,
    /// A further reservation has been asked for.
    pub(crate) reserve_told: bool,
    /// The mark of the latest export.
    pub(crate) exported: u64,
    /// Number under which it is stored; 0 until the first export.
    pub(crate) record: u64,
    /// Times that it was restored.
    pub(crate) generation: u64,
    pub(crate) last_seen: Instant,
    pub(crate) linger: Option<Box<Linger>>,
}

/// What a record came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Not for this association, or not authentic.
    Refused(Refused),
    /// Done with.
    Nothing,
    /// Application data of this length and record number.
    Data(usize, u64),
    /// It ends the association.
    Ended(Reason),
}

impl Session {
    /// The association that a complete handshake gives; `None` when it is not complete.
    pub(crate) fn new(mut core: Core, serial: u32, now: Instant) -> Option<Self> {
        let limit = |limit: usize| u16::try_from(limit.min(MAX_CONTENT)).unwrap_or_default();
        let keys = *core.keys.take()?;
        let send_limit = limit(core.flight.limit);
        // The last flight was ours: a server's in a full handshake, a client's in a resumed one.
        let linger = core.flight.is_changed().then(|| {
            Box::new(Linger {
                finished: core.reassembly.next().wrapping_sub(1),
                flight: core.flight,
            })
        });
        Some(Self {
            keys,
            address: core.address,
            identity: core.identity.take()?,
            serial,
            older: None,
            send_limit,
            receive_limit: limit(core.receive_limit),
            role: core.role,
            has_extended_master_secret: core.has_extended_master_secret,
            fresh: true,
            reserve_told: false,
            exported: 0,
            record: 0,
            generation: 0,
            last_seen: now,
            linger,
        })
    }

    /// Takes a record of epoch 1; its content comes to stand in `buf`. A newer record than every earlier one moves
    /// the peer's address, where it came with a connection id.
    pub(crate) fn receive(
        &mut self,
        record: &Record<'_>,
        source: SocketAddr,
        buf: &mut Vec<u8>,
        out: &mut Outbox,
        config: &Config,
        now: Instant,
    ) -> Received {
        let opened = match self.keys.open(record, buf) {
            Ok(opened) => opened,
            Err(Refused::Forged) if self.keys.forged >= MAX_FORGED => {
                return Received::Ended(Reason::Exhausted);
            }
            Err(refused) => return Received::Refused(refused),
        };
        self.last_seen = now;
        if opened.newest && !self.keys.own_cid.is_empty() {
            self.address = source;
        }
        if opened.length > self.receive_limit.into() {
            self.alert(FATAL, Alert::RecordOverflow, out);
            return Received::Ended(Reason::Overflow);
        }
        let body = buf.get(..opened.length).unwrap_or_default();
        match opened.kind {
            content::APPLICATION_DATA => {
                self.linger = None;
                Received::Data(opened.length, opened.sequence)
            }
            content::ALERT => match *body {
                [_, 0] => {
                    self.alert(WARNING, Alert::CloseNotify, out);
                    Received::Ended(Reason::ClosedByPeer)
                }
                [FATAL, _] => Received::Ended(Reason::ClosedByPeer),
                _ => Received::Nothing,
            },
            content::HANDSHAKE => {
                self.handshake(body, out, config, now);
                Received::Nothing
            }
            _ => Received::Nothing,
        }
    }

    /// A repeated Finished is answered with our final flight, anything that would begin another handshake inside
    /// this association with a warning (RFC 5746 4.5, RFC 7925 17).
    fn handshake(&mut self, body: &[u8], out: &mut Outbox, config: &Config, now: Instant) {
        let Ok(fragment) = Fragment::read(&mut Reader(body)) else {
            return;
        };
        match fragment.kind {
            handshake::CLIENT_HELLO if self.role == Role::Server => {
                self.alert(WARNING, Alert::NoRenegotiation, out);
            }
            handshake::HELLO_REQUEST if self.role == Role::Client => {
                self.alert(WARNING, Alert::NoRenegotiation, out);
            }
            handshake::FINISHED => {
                let Some(mut linger) = self.linger.take() else {
                    return;
                };
                if fragment.seq == linger.finished && fragment.is_last() {
                    let keys = Some(&mut self.keys);
                    linger.flight.repeat(keys, self.address, out, now, config);
                }
                self.linger = Some(linger);
            }
            _ => {}
        }
    }

    /// Half of the numbers that an export has reserved are used.
    pub(crate) fn wants_reservation(&self) -> bool {
        let left = self.keys.send_below.saturating_sub(self.keys.send_next);
        self.record != 0 && !self.reserve_told && left <= RESERVED / 2 && self.keys.send_below < MAX_SENT
    }

    fn alert(&mut self, level: u8, alert: Alert, out: &mut Outbox) {
        let (start, buf) = out.open();
        if self.keys.seal(content::ALERT, &[&[level, alert as u8]], buf) {
            out.commit(self.address, start);
        } else {
            out.abandon(start);
        }
    }

    pub(crate) fn close(&mut self, out: &mut Outbox) {
        self.alert(WARNING, Alert::CloseNotify, out);
    }

    pub(crate) fn send(&mut self, payload: &[u8], out: &mut Outbox) -> Result<(), SendError> {
        if payload.len() > self.send_limit.into() {
            return Err(SendError::TooLong);
        }
        if self.keys.send_next >= MAX_SENT {
            return Err(SendError::Exhausted);
        }
        if self.keys.send_next >= self.keys.send_below {
            return Err(SendError::Reserved);
        }
        let (start, buf) = out.open();
        if self.keys.seal(content::APPLICATION_DATA, &[payload], buf) {
            out.commit(self.address, start);
            Ok(())
        } else {
            out.abandon(start);
            Err(SendError::TooLong)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cid::ConnectionId;
    use crate::prf::DirectionKey;
    use crate::reassembly::header;
    use crate::record::Records;
    use crate::suite::Suite;
    use crate::window::Window;

    const NOW: Instant = Instant::from_micros(5);

    fn address() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 5684))
    }

    fn session(role: Role) -> Session {
        let key = |byte| DirectionKey {
            key: [byte; 16],
            iv: [byte; 4],
            mac: Some(Box::new([byte; 32])),
        };
        let (write, read) = if role == Role::Server { (1, 2) } else { (2, 1) };
        Session {
            keys: Protection {
                suite: Suite::PskCcm8,
                mac_order: crate::suite::MacOrder::default(),
                write: key(write),
                read: key(read),
                send_next: 0,
                send_below: MAX_SENT,
                window: Window::default(),
                own_cid: ConnectionId::default(),
                peer_cid: ConnectionId::default(),
                forged: 0,
            },
            address: address(),
            identity: Arc::new(Identity::Psk(Box::from(*b"dev1"))),
            serial: 1,
            older: None,
            send_limit: 512,
            receive_limit: 512,
            role,
            has_extended_master_secret: true,
            fresh: true,
            reserve_told: false,
            exported: 0,
            record: 0,
            generation: 0,
            last_seen: NOW,
            linger: None,
        }
    }

    /// What `session` makes of a record of its peer, and what its peer makes of the answer, if there is one.
    fn round(role: Role, kind: u8, body: &[u8]) -> (Received, Option<Vec<u8>>) {
        let (mut us, mut peer) = (session(role), session(role.other()));
        let config = Config::default();
        let mut out = Outbox::new(1 << 16);
        let mut buf = Vec::new();
        let mut datagram = Vec::new();
        assert!(peer.keys.seal(kind, &[body], &mut datagram));
        let record = Records::new(&datagram, 0).next().expect("a record");
        let received = us.receive(&record, address(), &mut buf, &mut out, &config, NOW);
        let answer = out.pop().map(|transmit| transmit.datagram.to_vec());
        let answer = answer.map(|datagram| {
            let record = Records::new(&datagram, 0).next().expect("a record");
            let opened = peer.keys.open(&record, &mut buf).expect("authentic");
            assert_eq!(opened.kind, content::ALERT);
            buf[..opened.length].to_vec()
        });
        (received, answer)
    }

    fn message(kind: u8) -> Vec<u8> {
        header(kind, 0, 0, 0, 0).to_vec()
    }

    #[test]
    fn a_repeated_finished_is_answered_with_the_final_flight_until_application_data_has_come() {
        let (mut us, mut peer) = (session(Role::Server), session(Role::Client));
        let config = Config::default();
        let mut flight = Flight::new(&config);
        flight.push_change_cipher_spec();
        us.linger = Some(Box::new(Linger { flight, finished: 3 }));
        let mut finished = header(handshake::FINISHED, 12, 3, 0, 12).to_vec();
        finished.extend_from_slice(&[7; 12]);
        let mut other = finished.clone();
        other[5] = 4;
        let mut out = Outbox::new(1 << 16);
        let mut now = NOW;
        let mut answers = |kind, body: &[u8]| {
            now = now + config.resend_gap;
            let mut datagram = Vec::new();
            assert!(peer.keys.seal(kind, &[body], &mut datagram));
            let record = Records::new(&datagram, 0).next().expect("a record");
            us.receive(&record, address(), &mut Vec::new(), &mut out, &config, now);
            std::iter::from_fn(|| out.pop().map(drop)).count()
        };
        assert_eq!(answers(content::HANDSHAKE, &finished), 1);
        assert_eq!(
            answers(content::HANDSHAKE, &other),
            0,
            "not the one that it answers"
        );
        assert_eq!(answers(content::HANDSHAKE, &finished), 1);
        assert_eq!(answers(content::APPLICATION_DATA, b"x"), 0);
        assert_eq!(answers(content::HANDSHAKE, &finished), 0);
    }

    #[test]
    fn another_handshake_inside_an_association_is_refused_with_a_warning() {
        let warning = Some(vec![WARNING, Alert::NoRenegotiation as u8]);
        let hello = message(handshake::CLIENT_HELLO);
        let request = message(handshake::HELLO_REQUEST);
        assert_eq!(
            round(Role::Server, content::HANDSHAKE, &hello),
            (Received::Nothing, warning.clone())
        );
        assert_eq!(
            round(Role::Client, content::HANDSHAKE, &request),
            (Received::Nothing, warning)
        );
        assert_eq!(
            round(Role::Client, content::HANDSHAKE, &hello),
            (Received::Nothing, None)
        );
        assert_eq!(
            round(Role::Server, content::HANDSHAKE, &request),
            (Received::Nothing, None)
        );
        assert_eq!(
            round(Role::Server, content::HANDSHAKE, &[1, 2, 3]),
            (Received::Nothing, None)
        );
    }

    #[test]
    fn a_record_above_the_negotiated_length_ends_it() {
        let fatal = Some(vec![FATAL, Alert::RecordOverflow as u8]);
        let ended = Received::Ended(Reason::Overflow);
        assert_eq!(
            round(Role::Server, content::APPLICATION_DATA, &[0; 513]),
            (ended, fatal)
        );
        let data = Received::Data(512, 0);
        assert_eq!(
            round(Role::Server, content::APPLICATION_DATA, &[0; 512]),
            (data, None)
        );
    }

    #[test]
    fn a_session_with_its_indexes_is_below_512_bytes() {
        // Identity on the heap with its counts, two index entries at their lowest load.
        let identity = 16 + std::mem::size_of::<Identity>() + 32;
        let indexes = 2
            * (std::mem::size_of::<(ConnectionId, u32)>() + std::mem::size_of::<(Arc<Identity>, u32)>() + 2);
        let total = std::mem::size_of::<Session>() + identity + indexes;
        assert!(total <= 512, "{total}");
    }
}
