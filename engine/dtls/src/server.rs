//! All associations of one listener: the way of a datagram into them, and of datagrams out of them.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use coap::{Instant, Map};
use slab::Slab;

use crate::associations::{id_of, place_of};
use crate::bounds::{Budget, Throttle};
use crate::cid::ConnectionId;
use crate::config::Config;
use crate::cookie::Cookies;
use crate::event::{Association, AssociationId, Event, Handler, Identity, Reason, SendError};
use crate::half_open::HalfOpen;
use crate::outbox::{Outbox, Transmit};
use crate::random::{Random, Source};
use crate::record::{Record, Records, Refused};
use crate::session::{Received, Session};
use crate::ticket::Tickets;
use crate::wire::content;

/// Counters since the start, and the present size of each table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Datagrams taken in.
    pub received: u64,
    /// Datagrams put out.
    pub sent: u64,
    /// Datagrams dropped because [`Config::max_output`] was reached.
    pub dropped: u64,
    /// Records that belong to nothing we know, or make no sense.
    pub foreign: u64,
    /// Records that had been seen before.
    pub replayed: u64,
    /// Records that did not authenticate.
    pub forged: u64,
    /// Hellos answered with a cookie.
    pub cookies: u64,
    /// Hellos with a valid cookie that were not taken because a bound was reached.
    pub shed: u64,
    /// Handshakes completed.
    pub established: u64,
    /// Those of them that resumed a session.
    pub resumed: u64,
    /// Handshakes that failed.
    pub failed: u64,
    /// Handshakes under way now.
    pub half_open: usize,
    /// Entries of their indexes now.
    pub half_open_index: usize,
    /// Bytes in reassembly now.
    pub reassembly_bytes: usize,
    /// Associations now.
    pub sessions: usize,
    /// Final flights kept now.
    pub lingering: usize,
    /// Events waiting now.
    pub events: usize,
}

/// The server side of one listener.
pub struct Server {
    pub(crate) config: Arc<Config>,
    pub(crate) random: Source,
    pub(crate) out: Outbox,
    pub(crate) events: VecDeque<Event>,
    pub(crate) cookies: Cookies,
    pub(crate) tickets: Tickets,
    pub(crate) half_open: HalfOpen,
    pub(crate) sessions: Slab<Session>,
    pub(crate) by_address: Map<SocketAddr, u32>,
    pub(crate) by_cid: Map<ConnectionId, u32>,
    /// The newest of each; the others are linked behind it.
    pub(crate) by_identity: Map<Arc<Identity>, u32>,
    /// Final flights, to be freed.
    pub(crate) lingering: BTreeSet<(Instant, AssociationId)>,
    pub(crate) budget: Budget,
    throttle: Throttle,
    pub(crate) counters: Statistics,
    buf: Vec<u8>,
    pub(crate) last_serial: u32,
    /// Stored associations that were restored here, with the generation of each.
    pub(crate) restored: Map<u64, u64>,
    /// The last number that an export got; 0: none has got one yet.
    pub(crate) last_record: u64,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server without associations.
    #[must_use]
    pub fn new(config: Arc<Config>, random: Box<dyn Random + Send>) -> Self {
        let mut random = Source(random);
        let keyed = random.keyed();
        Self {
            out: Outbox::new(config.max_output),
            events: VecDeque::new(),
            cookies: Cookies::new(),
            tickets: Tickets::new(),
            half_open: HalfOpen::new(keyed),
            sessions: Slab::new(),
            by_address: Map::with_hasher(keyed),
            by_cid: Map::with_hasher(keyed),
            by_identity: Map::with_hasher(keyed),
            lingering: BTreeSet::new(),
            budget: Budget::new(&config, keyed),
            throttle: Throttle::new(keyed),
            counters: Statistics::default(),
            buf: Vec::new(),
            last_serial: 0,
            restored: Map::with_hasher(keyed),
            last_record: 0,
            random,
            config,
        }
    }

    /// Other settings from now on, such as a new certificate: associations go on, handshakes under way too; tickets
    /// of before are good no more, as whom they were given to may not be trusted now. The length of connection ids must
    /// stay.
    pub fn reconfigure(&mut self, config: Arc<Config>) {
        self.tickets = Tickets::new();
        debug_assert_eq!(config.cid_length(), self.config.cid_length());
        self.config = config;
    }

    /// Takes a datagram in; application data goes to `handler` at once.
    pub fn receive_datagram(
        &mut self,
        address: SocketAddr,
        datagram: &[u8],
        now: Instant,
        handler: &mut dyn Handler,
    ) {
        self.counters.received += 1;
        for record in Records::new(datagram, self.config.cid_length()) {
            self.record(address, &record, now, handler);
        }
    }

    fn record(&mut self, address: SocketAddr, record: &Record<'_>, now: Instant, handler: &mut dyn Handler) {
        if record.kind == content::TLS12_CID {
            let cid = ConnectionId::new(record.cid).filter(|cid| !cid.is_empty());
            if let Some(index) = cid.and_then(|cid| self.by_cid.get(&cid).copied()) {
                self.session_record(index, address, record, now, handler);
            } else {
                self.half_open_record(address, record, now, handler);
            }
        } else if record.epoch == 0 {
            match record.kind {
                content::HANDSHAKE => self.plain_handshake(address, record, now, handler),
                content::CHANGE_CIPHER_SPEC | content::ALERT => {
                    self.half_open_record(address, record, now, handler);
                }
                _ => self.counters.foreign += 1,
            }
        } else if record.epoch != 1 {
            self.counters.foreign += 1;
        } else if let Some(index) = self.by_address.get(&address).copied() {
            // RFC 6347 4.2.8: the old association until the new Finished verifies.
            self.session_record(index, address, record, now, handler);
        } else {
            self.half_open_record(address, record, now, handler);
        }
    }

    fn session_record(
        &mut self,
        index: u32,
        address: SocketAddr,
        record: &Record<'_>,
        now: Instant,
        handler: &mut dyn Handler,
    ) {
        let Some(session) = self.sessions.get_mut(index as usize) else {
            return;
        };
        if session.keys.forged > self.config.max_forged && self.throttle.is_active(address, now) {
            self.counters.foreign += 1;
            return;
        }
        let before = (session.address, session.keys.forged);
        let (buf, out) = (&mut self.buf, &mut self.out);
        let received = session.receive(record, address, buf, out, &self.config, now);
        let id = id_of(index, session.serial);
        if session.address != before.0 {
            self.events.push_back(Event::Moved {
                association: id,
                from: before.0,
                to: session.address,
            });
        }
        match received {
            Received::Data(length, sequence) => {
                let association = Association {
                    id,
                    address: session.address,
                    identity: &session.identity,
                    sequence,
                    fresh: session.fresh,
                };
                handler.datagram(&association, self.buf.get(..length).unwrap_or_default());
            }
            Received::Nothing => {}
            Received::Ended(reason) => self.retire(index, reason),
            Received::Refused(refused) => {
                // With a handshake under way at this address the record may belong to it.
                if self.half_open.at(address).is_some() {
                    session.keys.forged = before.1;
                    self.half_open_record(address, record, now, handler);
                    return;
                }
                match refused {
                    Refused::Replayed => self.counters.replayed += 1,
                    Refused::Foreign | Refused::Malformed => self.counters.foreign += 1,
                    Refused::Forged => self.forged(index, address, now),
                }
            }
        }
    }

    /// Never drops an association for a few: that would be a cheap way to end it.
    fn forged(&mut self, index: u32, address: SocketAddr, now: Instant) {
        self.counters.forged += 1;
        let Some(session) = self.sessions.get(index as usize) else {
            return;
        };
        let forged = session.keys.forged;
        if forged > self.config.max_forged {
            self.throttle.set(address, self.config.throttle, now);
        }
        if forged == self.config.max_forged.saturating_add(1) {
            let association = id_of(index, session.serial);
            self.events.push_back(Event::Suspicious { association, address });
        }
    }

    /// Sends a datagram through an association.
    ///
    /// # Errors
    /// Why it was not sent; after `Exhausted` the association is gone.
    pub fn send(&mut self, association: AssociationId, payload: &[u8]) -> Result<(), SendError> {
        let (index, serial) = place_of(association);
        let session = self.sessions.get_mut(index as usize);
        let session = session
            .filter(|session| session.serial == serial)
            .ok_or(SendError::Unknown)?;
        let sent = session.send(payload, &mut self.out);
        if session.wants_reservation() {
            session.reserve_told = true;
            self.events.push_back(Event::Reserve { association });
        }
        if sent == Err(SendError::Exhausted) {
            self.retire(index, Reason::Exhausted);
        }
        sent
    }

    /// Says goodbye to a peer and forgets the association; false when there was none.
    pub fn close(&mut self, association: AssociationId) -> bool {
        let Some((index, _)) = self.find(association) else {
            return false;
        };
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.close(&mut self.out);
        }
        self.retire(index, Reason::Closed);
        true
    }

    /// The datagrams that wait to be sent, oldest first, for a batch (`sendmmsg`); then call [`Server::sent`].
    pub fn transmits(&self) -> impl Iterator<Item = Transmit<'_>> {
        self.out.iter()
    }

    /// The first `count` of [`Server::transmits`] have been sent (or dropped); their buffer is used again.
    pub fn sent(&mut self, count: usize) {
        self.out.advance(count);
    }

    /// The next datagram to be sent, one at a time; it counts as sent. Call it until it gives `None`.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.out.pop()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Server::handle_timeout`] wants to be called; calling it earlier or later does no harm.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let linger = self.lingering.first().map(|(at, _)| *at);
        let handshake = self.half_open.next_deadline();
        linger.into_iter().chain(handshake).min()
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.handshake_timeouts(now);
        while let Some((_, id)) = self.lingering.first().copied().filter(|(at, _)| *at <= now) {
            self.lingering.pop_first();
            if let Some((_, session)) = self.find(id) {
                session.linger = None;
            }
        }
    }

    /// Counters and table sizes.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            sent: self.out.sent,
            dropped: self.out.dropped,
            half_open: self.half_open.len(),
            half_open_index: self.half_open.index_len(),
            reassembly_bytes: self.half_open.bytes,
            sessions: self.sessions.len(),
            lingering: self.lingering.len(),
            events: self.events.len(),
            ..self.counters
        }
    }
}
