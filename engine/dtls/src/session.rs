//! An established association.

use std::net::SocketAddr;
use std::sync::Arc;

use coap::Instant;

use crate::alert::Alert;
use crate::config::Config;
use crate::event::{Identity, Reason, SendError};
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
    /// Content that the peer takes, and that we take.
    pub(crate) send_limit: u16,
    pub(crate) receive_limit: u16,
    pub(crate) is_server: bool,
    pub(crate) has_extended_master_secret: bool,
    /// The replay window is exact.
    pub(crate) fresh: bool,
    /// A further reservation has been asked for.
    pub(crate) reserve_told: bool,
    /// Records are sent below this number only: what a stored export has reserved.
    pub(crate) send_below: u64,
    /// Number under which it is stored; 0 until the first export.
    pub(crate) record: u64,
    /// Times that it was restored.
    pub(crate) generation: u64,
    pub(crate) created: Instant,
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
        let linger = core.is_server.then(|| {
            Box::new(Linger {
                finished: core.reassembly.next().wrapping_sub(1),
                flight: core.flight.clone(),
            })
        });
        Some(Self {
            keys,
            address: core.address,
            identity: core.identity.take()?,
            serial,
            send_limit: limit(core.flight.limit),
            receive_limit: limit(core.receive_limit),
            is_server: core.is_server,
            has_extended_master_secret: core.has_extended_master_secret,
            fresh: true,
            reserve_told: false,
            send_below: MAX_SENT,
            record: 0,
            generation: 0,
            created: now,
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
            handshake::CLIENT_HELLO if self.is_server => self.alert(WARNING, Alert::NoRenegotiation, out),
            handshake::HELLO_REQUEST if !self.is_server => self.alert(WARNING, Alert::NoRenegotiation, out),
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
        let left = self.send_below.saturating_sub(self.keys.send_next);
        self.record != 0 && !self.reserve_told && left <= RESERVED / 2 && self.send_below < MAX_SENT
    }

    fn alert(&mut self, level: u8, alert: Alert, out: &mut Outbox) {
        if self.keys.send_next >= self.send_below {
            return;
        }
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
        if self.keys.send_next >= self.send_below {
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
