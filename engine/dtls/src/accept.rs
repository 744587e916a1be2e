//! Hellos and handshakes of a [`Server`].

use std::net::SocketAddr;
use std::sync::Arc;

use coap::Instant;

use crate::alert::{Alert, Failure};
use crate::event::{Event, Handler, HandshakeId, PskKeys};
use crate::handshake::{self, Context, Kind, Step};
use crate::hello::HelloStart;
use crate::reassembly::{self, Fragment};
use crate::record::{HEADER, Record};
use crate::server::Server;
use crate::server_handshake::ServerHandshake;
use crate::session::Session;
use crate::wire::{self, Reader};

/// A `HelloVerifyRequest` with its headers; a shorter hello gets none, so that we never amplify.
const VERIFY_REQUEST: usize = HEADER + reassembly::HEADER + 19;
/// Hellos after the first that a client may come to need.
const MAX_HELLO_SEQ: u16 = 8;

macro_rules! context {
    ($self:ident, $now:expr, $handler:expr) => {
        Context {
            config: &$self.config,
            random: &mut $self.random,
            out: &mut $self.out,
            handler: $handler,
            budget: Some(&mut $self.budget),
            tickets: Some(&mut $self.tickets),
            now: $now,
        }
    };
}

impl Server {
    /// A handshake record of epoch 0.
    pub(crate) fn plain_handshake(
        &mut self,
        address: SocketAddr,
        record: &Record<'_>,
        now: Instant,
        handler: &mut dyn Handler,
    ) {
        let fragment = Fragment::read(&mut Reader(record.body)).ok();
        match fragment.filter(|fragment| fragment.kind == wire::handshake::CLIENT_HELLO) {
            Some(fragment) if fragment.offset == 0 => self.hello(address, record, &fragment, now, handler),
            _ => self.half_open_record(address, record, now, handler),
        }
    }

    /// The start of a `ClientHello`: nothing is kept of it before its cookie is valid.
    fn hello(
        &mut self,
        address: SocketAddr,
        record: &Record<'_>,
        fragment: &Fragment<'_>,
        now: Instant,
        handler: &mut dyn Handler,
    ) {
        let Ok(start) = HelloStart::parse(fragment.body) else {
            self.counters.foreign += 1;
            return;
        };
        let existing = self.half_open.at(address);
        if let Some(id) = existing
            && self
                .half_open
                .get_mut(id)
                .is_some_and(|handshake| handshake.begun_by == *start.random)
        {
            self.half_open_record(address, record, now, handler);
            return;
        }
        if fragment.seq > MAX_HELLO_SEQ {
            self.counters.foreign += 1;
            return;
        }
        let lifetime = self.config.cookie_lifetime;
        if !self
            .cookies
            .is_valid(&start, address, &mut self.random, lifetime, now)
        {
            if HEADER + record.body.len() >= VERIFY_REQUEST {
                self.counters.cookies += 1;
                let numbers = (record.sequence, fragment.seq);
                let (random, out) = (&mut self.random, &mut self.out);
                self.cookies
                    .request(&start, address, numbers, random, lifetime, now, out);
            }
            return;
        }
        let is_full = self.events.len() >= self.config.max_events
            || self.sessions.len() >= self.config.max_sessions
            || self.half_open.bytes >= self.config.max_reassembly_total;
        if is_full {
            self.counters.shed += 1;
            return;
        }
        if let Some(id) = existing {
            self.half_open.remove(id);
        }
        match self.half_open.room_for(address, &self.config, now) {
            Ok(None) => {}
            Ok(Some(id)) => self.give_up(id),
            Err(()) => {
                self.counters.shed += 1;
                return;
            }
        }
        let handshake = ServerHandshake::new(
            address,
            *start.random,
            fragment.seq,
            record.sequence,
            &self.config,
            now,
        );
        self.half_open.insert(handshake, &self.config);
        self.half_open_record(address, record, now, handler);
    }

    /// A record for the handshake under way with its source.
    pub(crate) fn half_open_record(
        &mut self,
        address: SocketAddr,
        record: &Record<'_>,
        now: Instant,
        handler: &mut dyn Handler,
    ) {
        let id = self.half_open.at(address);
        let Some((id, machine)) = id.and_then(|id| Some((id, self.half_open.get_mut(id)?))) else {
            self.counters.foreign += 1;
            return;
        };
        let mut context = context!(self, now, handler);
        let step = handshake::receive(machine, record, &mut context);
        self.stepped(id, &step, now);
    }

    /// What follows from a step of a handshake.
    fn stepped(&mut self, id: u64, step: &Result<Step, Failure>, now: Instant) {
        let Some(handshake) = self.half_open.get_mut(id) else {
            return;
        };
        if let Some(look_up) = handshake.core.look_up.take() {
            let address = handshake.core.address;
            self.events.push_back(Event::LookUp {
                handshake: HandshakeId(id),
                address,
                look_up,
            });
        }
        match step {
            Ok(Step::Nothing) => self.half_open.update(id, &self.config),
            Ok(Step::Done) => self.establish(id, now),
            Ok(Step::Shed) => {
                self.half_open.remove(id);
                self.counters.shed += 1;
            }
            Ok(Step::Abandoned(reason)) => self.fail(id, Failure::new(Alert::CloseNotify, reason), false),
            Err(failure) => self.fail(id, *failure, true),
        }
    }

    fn fail(&mut self, id: u64, failure: Failure, tell_peer: bool) {
        let Some(mut handshake) = self.half_open.remove(id) else {
            return;
        };
        if tell_peer {
            handshake.core.alert(failure.alert, &mut self.out);
        }
        self.counters.failed += 1;
        self.events.push_back(Event::Failed {
            address: handshake.core.address,
            reason: failure.reason,
            claimed: handshake.core.identity.take(),
        });
    }

    /// Ends a handshake that has come to nothing; the peer is not told.
    fn give_up(&mut self, id: u64) {
        let hint = self
            .half_open
            .get_mut(id)
            .and_then(|handshake| handshake.core.hint);
        self.fail(
            id,
            Failure::new(Alert::UserCanceled, hint.unwrap_or("timeout")),
            false,
        );
    }

    fn establish(&mut self, id: u64, now: Instant) {
        let core = self.half_open.get_mut(id).map(|handshake| &handshake.core);
        let Some((cid, is_resumed)) = core.map(|core| (core.own_cid, core.kind == Kind::Abbreviated)) else {
            return;
        };
        if self.has_cid(&cid) {
            self.fail(
                id,
                Failure::new(Alert::InternalError, "connection-ids-used-up"),
                false,
            );
            return;
        }
        let serial = self.next_serial();
        let session = self
            .half_open
            .remove(id)
            .and_then(|handshake| Session::new(handshake.core, serial, now));
        let Some(session) = session else { return };
        let (address, identity) = (session.address, Arc::clone(&session.identity));
        self.counters.established += 1;
        self.counters.resumed += u64::from(is_resumed);
        self.make_way(&session);
        let association = self.insert(session, now);
        self.events.push_back(Event::Established {
            association,
            address,
            identity,
        });
    }

    /// Answers [`crate::LookUp::Psk`]: the keys, or `None` when the identity is unknown.
    pub fn provide_psk(
        &mut self,
        handshake: HandshakeId,
        keys: Option<&PskKeys>,
        now: Instant,
        handler: &mut dyn Handler,
    ) {
        let id = handshake.0;
        let Some(machine) = self.half_open.get_mut(id) else {
            return;
        };
        if !machine.is_waiting_for_psk() {
            return;
        }
        let mut context = context!(self, now, handler);
        let step = machine
            .set_psk(keys, &mut context)
            .and_then(|step| handshake::go_on(step, machine, &mut context));
        self.stepped(id, &step, now);
    }

    /// Answers [`crate::LookUp::Peer`].
    pub fn provide_verdict(
        &mut self,
        handshake: HandshakeId,
        is_taken: bool,
        now: Instant,
        handler: &mut dyn Handler,
    ) {
        let id = handshake.0;
        let Some(machine) = self.half_open.get_mut(id) else {
            return;
        };
        if !machine.core.pending || machine.is_waiting_for_psk() {
            return;
        }
        let mut context = context!(self, now, handler);
        let step = machine
            .set_verdict(is_taken, &mut context)
            .and_then(|step| handshake::go_on(step, machine, &mut context));
        self.stepped(id, &step, now);
    }

    /// Resends what was not answered, and gives up what is too old.
    pub(crate) fn handshake_timeouts(&mut self, now: Instant) {
        while let Some((id, is_over)) = self.half_open.due(self.config.handshake_lifetime, now) {
            let resent = !is_over
                && self
                    .half_open
                    .get_mut(id)
                    .is_some_and(|handshake| handshake.core.resend(&self.config, &mut self.out, now));
            if resent {
                self.half_open.update(id, &self.config);
            } else {
                self.give_up(id);
            }
        }
    }
}
