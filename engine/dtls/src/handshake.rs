//! What the handshakes of both roles have in common: numbers, transcript, keys, and the way of a record into them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap::Instant;
use subtle::ConstantTimeEq;

use crate::alert::{Alert, Failure};
use crate::bounds::Budget;
use crate::certificate::PeerKey;
use crate::cid::ConnectionId;
use crate::config::Config;
use crate::event::{Handler, Identity, LookUp, Role};
use crate::flight::Flight;
use crate::keys::Ephemeral;
use crate::outbox::Outbox;
use crate::prf::{self, Master, Prf};
use crate::random::Source;
use crate::reassembly::{self, Fragment, Message, Reassembly, Taken};
use crate::record::{MAX_SENT, Opened, Protection, Record, Refused, put_header};
use crate::suite::{MacOrder, Suite};
use crate::ticket::Tickets;
use crate::transcript::Transcript;
use crate::window::Window;
use crate::wire::{MAX_CONTENT, Reader, VERSION, content, handshake};

/// Records of epoch 1 kept until `ChangeCipherSpec` or an answer comes.
const MAX_EARLY: usize = 2;
const MAX_EARLY_BYTES: usize = 512;
/// Time after which a record that doesn't open is of a flight that was sent again; devices wait a second or longer.
const REPEATED: Duration = Duration::from_millis(500);

/// What a step of a handshake works with.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) random: &'a mut Source,
    pub(crate) out: &'a mut Outbox,
    pub(crate) handler: &'a mut dyn Handler,
    /// For public-key work of a server.
    pub(crate) budget: Option<&'a mut Budget>,
    /// Of a server.
    pub(crate) tickets: Option<&'a mut Tickets>,
    pub(crate) now: Instant,
}

/// What a step of a handshake comes to.
#[derive(Debug)]
pub(crate) enum Step {
    Nothing,
    /// Complete.
    Done,
    /// Too much public-key work: the peer may try again.
    Shed,
    /// The peer gave up, under the new keys.
    Abandoned(&'static str),
}

/// A record of epoch 1 that came too early.
#[derive(Debug)]
struct Early {
    kind: u8,
    version: u16,
    sequence: u64,
    cid: ConnectionId,
    body: Vec<u8>,
}

/// The pre-shared key before the present one.
enum Former {
    None,
    /// Secret and keys from it, until the peer's Finished tells which it has.
    Possible(Box<(Master, Protection)>),
    Proved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Full,
    /// Of a session that is resumed (RFC 5246 7.3).
    Abbreviated,
}

pub(crate) struct Core {
    pub(crate) role: Role,
    pub(crate) address: SocketAddr,
    pub(crate) created: Instant,
    /// When a message last was taken.
    pub(crate) progress: Instant,
    pub(crate) flight: Flight,
    pub(crate) reassembly: Reassembly,
    pub(crate) transcript: Transcript,
    pub(crate) client_random: [u8; 32],
    pub(crate) server_random: [u8; 32],
    pub(crate) suite: Suite,
    pub(crate) mac_order: MacOrder,
    pub(crate) has_extended_master_secret: bool,
    pub(crate) own_cid: ConnectionId,
    pub(crate) peer_cid: ConnectionId,
    /// Content of a record that we take.
    pub(crate) receive_limit: usize,
    /// Boxed, as most handshakes have none.
    pub(crate) ephemeral: Option<Box<Ephemeral>>,
    pub(crate) master: Option<Master>,
    pub(crate) keys: Option<Box<Protection>>,
    former: Former,
    pub(crate) kind: Kind,
    /// The peer's `ChangeCipherSpec` has come, in its place.
    pub(crate) changed: bool,
    /// Waits for an answer of the caller.
    pub(crate) pending: bool,
    /// What it waits for, to be passed on.
    pub(crate) look_up: Option<LookUp>,
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) peer_key: Option<PeerKey>,
    /// What an unauthenticated alert said: a hint for operators, nothing else.
    pub(crate) hint: Option<&'static str>,
    /// When the first record came that our keys don't open.
    forged: Option<Instant>,
    early: Vec<Early>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new(role: Role, address: SocketAddr, next: u16, config: &Config, now: Instant) -> Self {
        Self {
            role,
            address,
            created: now,
            progress: now,
            flight: Flight::new(config),
            reassembly: Reassembly::new(next),
            transcript: Transcript::new(),
            client_random: [0; 32],
            server_random: [0; 32],
            suite: Suite::PskCcm8,
            mac_order: MacOrder::default(),
            has_extended_master_secret: false,
            own_cid: ConnectionId::default(),
            peer_cid: ConnectionId::default(),
            receive_limit: MAX_CONTENT,
            ephemeral: None,
            master: None,
            keys: None,
            former: Former::None,
            kind: Kind::Full,
            changed: false,
            pending: false,
            look_up: None,
            identity: None,
            peer_key: None,
            hint: None,
            forged: None,
            early: Vec::new(),
        }
    }

    /// A record came that our keys don't open. One may be anybody's, and is dropped; when the peer sends its flight again
    /// and it still doesn't open, the keys differ: the peer hears so (RFC 4279 2, for an unknown identity too).
    fn not_opened(&mut self, now: Instant) -> Result<(), Failure> {
        let reason = *self.hint.get_or_insert("wrong-key");
        let first = *self.forged.get_or_insert(now);
        if now.since(first) < REPEATED {
            return Ok(());
        }
        Err(Failure::new(Alert::DecryptError, reason))
    }

    /// Notes a message as if it had not been fragmented (RFC 6347 4.2.6).
    pub(crate) fn note(&mut self, kind: u8, seq: u16, body: &[u8]) {
        let header = reassembly::header(kind, body.len(), seq, 0, body.len());
        self.transcript.push(&header, body);
    }

    /// Appends a message to our flight.
    pub(crate) fn say(&mut self, kind: u8, body: Vec<u8>) {
        let seq = self.flight.next_seq;
        self.note(kind, seq, &body);
        self.flight.push(kind, body);
    }

    pub(crate) fn send(&mut self, context: &mut Context<'_>, answer_expected: bool) {
        let keys = self.keys.as_deref_mut();
        self.flight
            .send(keys, self.address, context.out, context.now, answer_expected);
    }

    fn repeat(&mut self, context: &mut Context<'_>) {
        let keys = self.keys.as_deref_mut();
        self.flight
            .repeat(keys, self.address, context.out, context.now, context.config);
    }

    /// The timer has expired; false when the peer has not answered often enough, or the handshake is too old.
    pub(crate) fn resend(&mut self, config: &Config, out: &mut Outbox, now: Instant) -> bool {
        let keys = self.keys.as_deref_mut();
        self.flight.resend(keys, self.address, out, now, config)
    }

    /// When something is to be done.
    pub(crate) fn deadline(&self, config: &Config) -> Instant {
        let end = self.created + config.handshake_lifetime;
        self.flight.deadline.map_or(end, |at| at.min(end))
    }

    /// Tells the peer of a fatal error, under the keys that it expects by now.
    pub(crate) fn alert(&mut self, alert: Alert, out: &mut Outbox) {
        let (start, buf) = out.open();
        let body = [2, alert as u8];
        let encrypted = self.flight.is_changed();
        if let Some(keys) = self.keys.as_deref_mut().filter(|_| encrypted) {
            keys.seal(content::ALERT, &[&body], buf);
        } else {
            put_header(buf, content::ALERT, VERSION, self.flight.record_seq, body.len());
            self.flight.record_seq += 1;
            buf.extend_from_slice(&body);
        }
        out.commit(self.address, start);
    }

    /// The master secret and the keys, with the transcript through `ClientKeyExchange`.
    pub(crate) fn derive(&mut self, premaster: &[u8]) {
        let master = self.master_secret(premaster);
        self.keys = Some(Box::new(self.protection(&master)));
        self.master = Some(master);
    }

    /// Fresh keys from the master secret of the session that is resumed.
    pub(crate) fn resume(&mut self, master: Master) {
        self.kind = Kind::Abbreviated;
        self.keys = Some(Box::new(self.protection(&master)));
        self.master = Some(master);
    }

    /// The same from another pre-shared key, in case that it is the peer's.
    pub(crate) fn derive_former(&mut self, premaster: &[u8]) {
        let master = self.master_secret(premaster);
        let keys = self.protection(&master);
        self.former = Former::Possible(Box::new((master, keys)));
    }

    fn master_secret(&self, premaster: &[u8]) -> Master {
        if self.has_extended_master_secret {
            prf::extended_master_secret(premaster, &self.transcript.hash())
        } else {
            prf::master_secret(premaster, &self.client_random, &self.server_random)
        }
    }

    fn protection(&self, master: &Master) -> Protection {
        let [client_key, server_key] = prf::key_block(
            master,
            &self.client_random,
            &self.server_random,
            self.suite.is_cbc(),
        );
        let (write, read) = if self.role == Role::Server {
            (server_key, client_key)
        } else {
            (client_key, server_key)
        };
        Protection {
            suite: self.suite,
            mac_order: self.mac_order,
            write,
            read,
            send_next: 0,
            send_below: MAX_SENT,
            window: Window::default(),
            own_cid: self.own_cid,
            peer_cid: self.peer_cid,
            forged: 0,
        }
    }

    /// Opens a record of the peer. The first that only the former key opens makes that the key.
    fn open(&mut self, record: &Record<'_>, buf: &mut Vec<u8>) -> Result<Opened, Refused> {
        let keys = self.keys.as_deref_mut().ok_or(Refused::Foreign)?;
        let opened = keys.open(record, buf);
        if opened != Err(Refused::Forged) {
            return opened;
        }
        let Former::Possible(former) = &mut self.former else {
            return opened;
        };
        let by_former = former.1.open(record, buf);
        if by_former.is_ok()
            && let Former::Possible(former) = std::mem::replace(&mut self.former, Former::Proved)
        {
            let (master, keys) = *former;
            self.master = Some(master);
            self.keys = Some(Box::new(keys));
        }
        by_former
    }

    /// The peer has the former key.
    pub(crate) const fn has_former(&self) -> bool {
        matches!(self.former, Former::Proved)
    }

    /// For the Finished messages of both sides.
    pub(crate) fn prf(&self) -> Result<Prf, Failure> {
        let master = self.master.as_ref().ok_or(Alert::InternalError)?;
        Ok(Prf::new(master.as_slice()))
    }

    /// `verify_data` of one side over the transcript so far.
    fn verify_data(&self, prf: &Prf, of: Role) -> [u8; prf::VERIFY_DATA] {
        let label: &[u8] = match of {
            Role::Client => b"client finished",
            Role::Server => b"server finished",
        };
        prf.verify_data(label, &self.transcript.hash())
    }

    /// Checks the peer's Finished.
    pub(crate) fn check_finished(
        &mut self,
        message: &Message,
        prf: &Prf,
        context: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let expected = self.verify_data(prf, self.role.other());
        if !bool::from(expected.as_slice().ct_eq(&message.body)) {
            return Err(Failure::new(Alert::DecryptError, "bad-finished"));
        }
        self.note(message.kind, message.seq, &message.body);
        if let Some(master) = self.master.as_ref().filter(|_| context.config.key_log) {
            context.handler.key_log(&self.client_random, master);
        }
        Ok(())
    }

    /// `ChangeCipherSpec` and Finished of ours.
    pub(crate) fn finish(&mut self, prf: &Prf) {
        let data = self.verify_data(prf, self.role);
        self.flight.push_change_cipher_spec();
        self.say(handshake::FINISHED, data.to_vec());
    }
}

/// A role's table of messages.
pub(crate) trait Machine {
    fn core(&mut self) -> &mut Core;
    /// Takes the next message in order.
    fn message(&mut self, message: Message, context: &mut Context<'_>) -> Result<Step, Failure>;
    /// `ChangeCipherSpec` has its place here.
    fn takes_change(&self) -> bool;
}

/// A record of the handshake's peer.
pub(crate) fn receive(
    machine: &mut impl Machine,
    record: &Record<'_>,
    context: &mut Context<'_>,
) -> Result<Step, Failure> {
    match (record.epoch, record.kind) {
        (0, content::HANDSHAKE) => fragments(machine, record.body, 0, context),
        (0, content::CHANGE_CIPHER_SPEC) => {
            // Once, and only in its place (CVE-2014-0224).
            if record.body == [1] && machine.takes_change() && !machine.core().changed {
                machine.core().changed = true;
                return take_early(machine, context);
            }
            Ok(Step::Nothing)
        }
        (0, content::ALERT) => {
            if let [2, code] = *record.body {
                machine.core().hint = Alert::from_code(code).map(Alert::as_str);
            }
            Ok(Step::Nothing)
        }
        (1, _) => encrypted(machine, record, context),
        _ => Ok(Step::Nothing),
    }
}

fn encrypted(
    machine: &mut impl Machine,
    record: &Record<'_>,
    context: &mut Context<'_>,
) -> Result<Step, Failure> {
    let core = machine.core();
    let ready = core.changed && !core.pending;
    if core.keys.is_none() || !ready {
        let cid = ConnectionId::new(record.cid);
        if core.early.len() < MAX_EARLY && record.body.len() <= MAX_EARLY_BYTES {
            core.early.extend(cid.map(|cid| Early {
                kind: record.kind,
                version: record.version,
                sequence: record.sequence,
                cid,
                body: record.body.to_vec(),
            }));
        }
        return Ok(Step::Nothing);
    }
    let mut buf = Vec::new();
    match core.open(record, &mut buf) {
        Ok(Opened { kind, length, .. }) => {
            let body = buf.get(..length).unwrap_or_default();
            match kind {
                content::HANDSHAKE => fragments(machine, body, 1, context),
                content::ALERT => Ok(match *body {
                    [2, number] => Step::Abandoned(Alert::from_code(number).map_or("alert", Alert::as_str)),
                    [_, 0] => Step::Abandoned(Alert::CloseNotify.as_str()),
                    _ => Step::Nothing,
                }),
                _ => Ok(Step::Nothing),
            }
        }
        Err(Refused::Forged) => core.not_opened(context.now).map(|()| Step::Nothing),
        Err(_) => Ok(Step::Nothing),
    }
}

/// After an answer of the caller.
pub(crate) fn go_on(
    step: Step,
    machine: &mut impl Machine,
    context: &mut Context<'_>,
) -> Result<Step, Failure> {
    match step {
        Step::Nothing => take_early(machine, context),
        other => Ok(other),
    }
}

/// Records that came too early may pass now.
fn take_early(machine: &mut impl Machine, context: &mut Context<'_>) -> Result<Step, Failure> {
    let core = machine.core();
    if core.pending || !core.changed || core.keys.is_none() {
        return Ok(Step::Nothing);
    }
    for early in std::mem::take(&mut core.early) {
        let record = Record {
            kind: early.kind,
            version: early.version,
            epoch: 1,
            sequence: early.sequence,
            cid: early.cid.as_bytes(),
            body: &early.body,
        };
        let step = encrypted(machine, &record, context)?;
        if !matches!(step, Step::Nothing) {
            return Ok(step);
        }
    }
    Ok(Step::Nothing)
}

fn fragments(
    machine: &mut impl Machine,
    body: &[u8],
    epoch: u16,
    context: &mut Context<'_>,
) -> Result<Step, Failure> {
    let mut reader = Reader(body);
    while !reader.is_empty() {
        let Ok(fragment) = Fragment::read(&mut reader) else {
            break;
        };
        // Finished is the only message of epoch 1, and a request for another handshake is none of this one.
        if (fragment.kind == handshake::FINISHED) != (epoch == 1) || fragment.kind == handshake::HELLO_REQUEST
        {
            continue;
        }
        let core = machine.core();
        let budget = context.config.max_reassembly;
        let mut next = core.reassembly.whole(&fragment, budget);
        if next.is_none() {
            match core.reassembly.insert(&fragment, budget) {
                Taken::Old => {
                    // Once per repetition of the flight, not per fragment.
                    if fragment.is_last() && fragment.seq.checked_add(1) == Some(core.reassembly.next()) {
                        core.repeat(context);
                    }
                }
                Taken::Dropped => {}
                Taken::New => next = core.reassembly.pop(),
            }
        }
        while let Some(message) = next {
            machine.core().progress = context.now;
            let step = machine.message(message, context)?;
            if !matches!(step, Step::Nothing) {
                return Ok(step);
            }
            next = machine.core().reassembly.pop();
        }
    }
    Ok(Step::Nothing)
}
