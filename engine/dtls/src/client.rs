//! The client side: one association.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use coap::Instant;

use crate::alert::Failure;
use crate::associations::id_of;
use crate::client_handshake::ClientHandshake;
use crate::config::Config;
use crate::event::{Association, Event, Handler, Reason, SendError};
use crate::handshake::{self, Context, Step};
use crate::outbox::{Outbox, Transmit};
use crate::random::{Random, Source};
use crate::record::Records;
use crate::session::{Received, Session};
use crate::ticket::Resumable;

/// One client with at most one association.
pub struct Client {
    pub(crate) config: Arc<Config>,
    pub(crate) random: Source,
    out: Outbox,
    events: VecDeque<Event>,
    handshake: Option<Box<ClientHandshake>>,
    pub(crate) session: Option<Box<Session>>,
    buf: Vec<u8>,
    serial: u32,
    resumable: Option<Resumable>,
    /// The stored association that was restored last, with its generation.
    pub(crate) restored: Option<(u64, u64)>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("is_established", &self.session.is_some())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that is not connected.
    #[must_use]
    pub fn new(config: Arc<Config>, random: Box<dyn Random + Send>) -> Self {
        Self {
            out: Outbox::new(config.max_output),
            config,
            random: Source(random),
            events: VecDeque::new(),
            handshake: None,
            session: None,
            buf: Vec::new(),
            serial: 0,
            resumable: None,
            restored: None,
        }
    }

    /// Takes other settings from the next handshake on: one client among very many holds its credentials only while
    /// it needs them. The next handshake is a full one. The length of the connection ids must stay the same.
    pub fn set_config(&mut self, config: Arc<Config>) {
        self.resumable = None;
        self.config = config;
    }

    /// Gives buffers that hold nothing back to the allocator, for very many clients that rarely send.
    pub fn shrink(&mut self) {
        self.out.shrink();
        self.events.shrink_to_fit();
        self.buf = Vec::new();
    }

    /// Begins a handshake; an association that exists goes on until the new one is complete. It resumes the session
    /// before with the same server, if that has given a ticket and takes it.
    ///
    /// # Errors
    /// When there are no credentials for any suite, or no randomness.
    pub fn connect(
        &mut self,
        server: SocketAddr,
        now: Instant,
        handler: &mut dyn Handler,
    ) -> Result<(), Failure> {
        let config = Arc::clone(&self.config);
        // Taken out: after a failure with it the next handshake is a full one.
        let resumable = self.resumable.take();
        let mut context = self.context(&config, now, handler);
        let handshake = ClientHandshake::start(server, resumable, &mut context)?;
        self.handshake = Some(Box::new(handshake));
        Ok(())
    }

    fn context<'a>(
        &'a mut self,
        config: &'a Config,
        now: Instant,
        handler: &'a mut dyn Handler,
    ) -> Context<'a> {
        Context {
            config,
            random: &mut self.random,
            out: &mut self.out,
            handler,
            budget: None,
            tickets: None,
            now,
        }
    }

    /// An association exists.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.session.is_some()
    }

    /// Takes a datagram in; application data goes to `handler` at once.
    pub fn receive_datagram(
        &mut self,
        address: SocketAddr,
        datagram: &[u8],
        now: Instant,
        handler: &mut dyn Handler,
    ) {
        let config = Arc::clone(&self.config);
        for record in Records::new(datagram, config.cid_length()) {
            if let Some(session) = self.session.as_deref_mut().filter(|_| record.epoch == 1) {
                let (buf, out) = (&mut self.buf, &mut self.out);
                let before = session.address;
                let received = session.receive(&record, address, buf, out, &config, now);
                if session.address != before {
                    self.events.push_back(Event::Moved {
                        association: id_of(0, session.serial),
                        from: before,
                        to: session.address,
                    });
                }
                match received {
                    Received::Data(length, sequence) => {
                        let association = Association {
                            id: id_of(0, session.serial),
                            address: session.address,
                            identity: &session.identity,
                            sequence,
                            fresh: session.fresh,
                        };
                        handler.datagram(&association, self.buf.get(..length).unwrap_or_default());
                        continue;
                    }
                    Received::Nothing => continue,
                    Received::Ended(reason) => {
                        self.retire(reason);
                        continue;
                    }
                    Received::Refused(_) => {}
                }
            }
            let Some(mut machine) = self.handshake.take() else {
                continue;
            };
            if machine.core.address != address {
                self.handshake = Some(machine);
                continue;
            }
            let mut context = self.context(&config, now, handler);
            match handshake::receive(&mut *machine, &record, &mut context) {
                Ok(Step::Nothing | Step::Shed) => self.handshake = Some(machine),
                Ok(Step::Done) => self.establish(*machine, now),
                Ok(Step::Abandoned(reason)) => self.fail(*machine, reason),
                Err(failure) => {
                    machine.core.alert(failure.alert, &mut self.out);
                    self.fail(*machine, failure.reason);
                }
            }
        }
    }

    fn establish(&mut self, mut machine: ClientHandshake, now: Instant) {
        self.resumable = machine.resumable(now);
        self.retire(Reason::Replaced);
        let serial = self.next_serial();
        let Some(session) = Session::new(machine.core, serial, now) else {
            return;
        };
        self.events.push_back(Event::Established {
            association: id_of(0, self.serial),
            address: session.address,
            identity: Arc::clone(&session.identity),
        });
        self.session = Some(Box::new(session));
    }

    pub(crate) fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    fn fail(&mut self, mut machine: ClientHandshake, reason: &'static str) {
        self.events.push_back(Event::Failed {
            address: machine.core.address,
            reason,
            claimed: machine.core.identity.take(),
        });
    }

    fn retire(&mut self, reason: Reason) {
        if let Some(session) = self.session.take() {
            self.events.push_back(Event::Closed {
                association: id_of(0, session.serial),
                reason,
            });
        }
    }

    /// Sends a datagram through the association.
    ///
    /// # Errors
    /// Why it was not sent; after `Exhausted` the association is gone.
    pub fn send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        let session = self.session.as_deref_mut().ok_or(SendError::Unknown)?;
        let sent = session.send(payload, &mut self.out);
        if session.wants_reservation() {
            session.reserve_told = true;
            let association = id_of(0, session.serial);
            self.events.push_back(Event::Reserve { association });
        }
        if sent == Err(SendError::Exhausted) {
            self.retire(Reason::Exhausted);
        }
        sent
    }

    /// Says goodbye; a handshake under way is given up.
    pub fn close(&mut self) {
        self.handshake = None;
        if let Some(session) = self.session.as_deref_mut() {
            session.close(&mut self.out);
            self.retire(Reason::Closed);
        }
    }

    /// The datagrams that wait to be sent, oldest first; then call [`Client::sent`].
    pub fn transmits(&self) -> impl Iterator<Item = Transmit<'_>> {
        self.out.iter()
    }

    /// The first `count` of [`Client::transmits`] have been sent (or dropped).
    pub fn sent(&mut self, count: usize) {
        self.out.advance(count);
    }

    /// The next datagram to be sent; it counts as sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.out.pop()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Client::handle_timeout`] wants to be called.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let handshake = self.handshake.as_deref()?;
        Some(handshake.core.deadline(&self.config))
    }

    /// Resends what was not answered, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(mut machine) = self
            .handshake
            .take_if(|machine| machine.core.deadline(&self.config) <= now)
        else {
            return;
        };
        let is_over = now.since(machine.core.created) >= self.config.handshake_lifetime;
        if !is_over && machine.core.resend(&self.config, &mut self.out, now) {
            self.handshake = Some(machine);
        } else {
            let reason = machine.core.hint.unwrap_or("timeout");
            self.fail(*machine, reason);
        }
    }
}
