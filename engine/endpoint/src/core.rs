//! The engine without its sockets: actions and datagrams in, events and datagrams out.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use coap::{Handle, Instant, RequestError, Stack};

use crate::action::{Action, To};
use crate::event::{Claim, Event, Remote, reason};
use crate::key::{PeerKey, Route};
use crate::offers::Offers;
use crate::reporter::Reporter;
use crate::secure::Secure;
use crate::settings::Checked;
use crate::shared::Shared;
use crate::site::Site;

/// The longest time that a bare Update goes unreported.
const REPORT_PERIOD: Duration = Duration::from_secs(1);

struct Call {
    handle: u64,
    /// Bytes of a push that were acknowledged.
    offset: u64,
}

/// Everything that one engine knows, driven by its thread.
pub struct Core {
    pub stack: Stack<PeerKey>,
    pub site: Site,
    pub reporter: Reporter,
    pub secure: Secure,
    handles: HashMap<u64, Handle>,
    calls: HashMap<Handle, Call>,
    report_due: Option<Instant>,
    /// Whose association is just ending.
    leaving: Option<(PeerKey, Arc<dtls::Identity>)>,
    /// Why the calls that are just ending do so.
    handshake_failure: Option<&'static str>,
    /// News of DTLS that may wait for Python.
    max_security: usize,
    panics: u64,
    responses: u64,
    answers: u64,
}

impl Core {
    pub fn new(settings: Checked, seed: u64, shared: &Arc<Shared>) -> Self {
        let offers = Offers::new(settings.coap.progress_bytes, settings.coap.block_size);
        let busy_max_age = settings.coap.busy_max_age;
        Self {
            site: Site::new(Arc::clone(shared), offers, settings.max_events, busy_max_age),
            reporter: Reporter::new(Arc::clone(shared), settings.max_events),
            secure: Secure::new(settings.max_events),
            stack: Stack::new(settings.coap, seed),
            handles: HashMap::new(),
            calls: HashMap::new(),
            report_due: None,
            leaving: None,
            handshake_failure: None,
            max_security: settings.max_events,
            panics: 0,
            responses: 0,
            answers: 0,
        }
    }

    /// Takes one datagram. A panic is contained: it is counted and costs this peer its state, and nobody else.
    pub fn datagram(&mut self, peer: PeerKey, datagram: &[u8], now: Instant) {
        self.site.collected = self.reporter.requests;
        let (stack, site) = (&mut self.stack, &mut self.site);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            stack.receive_datagram(peer, datagram, now, site);
        }));
        if outcome.is_err() {
            self.panics += 1;
            self.guarded(|core| core.stack.forget_peer(peer, now));
        }
        self.collect();
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Instant) {
        if self.stack.next_timeout().is_some_and(|due| due <= now) {
            self.guarded(|core| core.stack.handle_timeout(now));
            self.collect();
        }
        self.secure_timeout(now);
        if self.site.liveness.has_news() {
            let due = *self.report_due.get_or_insert(now + REPORT_PERIOD);
            if due <= now || self.site.liveness.is_full() {
                self.report_liveness();
                self.report_due = self.site.liveness.has_news().then_some(now + REPORT_PERIOD);
            }
        }
    }

    /// Reports the liveness that is not reported yet: nobody keeps it after this engine.
    pub fn last_report(&mut self) {
        while self.site.liveness.has_news() {
            self.reporter.emit(Event::Alive(self.site.liveness.report()));
        }
    }

    /// Reports what has room; the rest stays in the table for the next time.
    fn report_liveness(&mut self) {
        let mut reports = self.reporter.room_for_alive();
        while reports > 0 && self.site.liveness.has_news() {
            self.reporter.emit(Event::Alive(self.site.liveness.report()));
            reports -= 1;
        }
    }

    /// When `timeout` wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        [
            self.stack.next_timeout(),
            self.secure.next_timeout(),
            self.report_due,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Applies one action; sockets are the thread's business.
    pub fn act(&mut self, action: Action, now: Instant) {
        self.guarded(|core| core.apply(action, now));
        self.collect();
    }

    fn apply(&mut self, action: Action, now: Instant) {
        match action {
            Action::Listen(_) => {}
            Action::Request {
                handle,
                to,
                request,
                delivery,
            } => {
                if let Some(peer) = self.resolve(handle, to) {
                    let started = self.stack.request(peer, *request, delivery, now);
                    self.started(handle, peer, started);
                }
            }
            Action::Push { handle, to, push } => {
                if let Some(peer) = self.resolve(handle, to) {
                    let started = self.stack.push(peer, *push, now);
                    self.started(handle, peer, started);
                }
            }
            Action::Cancel { handle } => {
                if let Some(&call) = self.handles.get(&handle) {
                    self.stack.cancel(call, now);
                }
            }
            // An exchange that has ended meanwhile needs no answer.
            Action::Respond { exchange, response } => {
                self.answers += u64::from(self.stack.respond(exchange, *response, now).is_ok());
            }
            Action::Notify {
                exchange,
                response,
                confirmable,
            } => {
                let _ = self.stack.notify(exchange, *response, confirmable, now);
            }
            Action::Stream { path } => {
                if !self.site.streams.contains(&path) {
                    self.site.streams.push(path);
                }
            }
            Action::Offer { path, blob, owner } => self.site.offers.offer(path, blob, owner),
            Action::Withdraw { path, owner } => self.site.offers.withdraw(&path, owner),
            Action::RemoveBlob { digest } => self.site.offers.remove_blob(&digest),
            Action::Keep { location, owner } => self.site.liveness.keep(&location, owner),
            Action::KeepAll(kept) => {
                for (location, owner) in kept {
                    self.site.liveness.keep(&location, owner);
                }
            }
            Action::Drop { location } => self.site.liveness.forget(&location),
            Action::ForgetPeer { to: To::Key(peer) } => {
                self.stack.forget_peer(peer, now);
                if let Route::Server(address) = peer.route() {
                    self.secure.links.forget(peer, address);
                }
            }
            Action::ForgetPeer {
                to: To::Identity { hash, .. },
            } => {
                for peer in self.secure.associations.of(hash) {
                    self.stack.forget_peer(peer, now);
                }
            }
            Action::Security(action) => self.secure_action(action, now),
        }
    }

    /// The association of an identity; without one the request has failed.
    fn resolve(&mut self, handle: u64, to: To) -> Option<PeerKey> {
        match to {
            To::Key(key) => Some(key),
            To::Identity { hash, name, address } => {
                let current = self.secure.associations.current(hash);
                if current.is_some() {
                    return current;
                }
                let peer = Remote {
                    key: PeerKey::new(0, address),
                    address,
                    claim: Some(Claim::Named(name)),
                };
                self.reporter.emit(Event::Failure {
                    handle,
                    peer,
                    reason: reason::PEER_GONE,
                    detail: "it has no association",
                    offset: 0,
                });
                None
            }
        }
    }

    fn started(&mut self, handle: u64, peer: PeerKey, outcome: Result<Handle, RequestError>) {
        let (reason, detail) = match outcome {
            Ok(call) => {
                self.handles.insert(handle, call);
                self.calls.insert(call, Call { handle, offset: 0 });
                return;
            }
            Err(RequestError::QueueFull) => (reason::BUSY, "too many requests wait for this peer"),
            Err(RequestError::TooMany) => (reason::BUSY, "too many requests in total"),
            Err(RequestError::Invalid(what)) => (reason::INVALID, what),
        };
        let peer = self.remote(peer);
        self.reporter.emit(Event::Failure {
            handle,
            peer,
            reason,
            detail,
            offset: 0,
        });
    }

    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            self.panics += 1;
        }
    }

    /// Turns what the stack and the site have to tell into events.
    fn collect(&mut self) {
        while let Some(event) = self.stack.poll_event() {
            if let Some(event) = self.translate(event) {
                self.reporter.emit(event);
            }
        }
        for mut download in std::mem::take(&mut self.site.news) {
            download.peer = self.remote(download.peer.key);
            self.reporter.emit(Event::Download(download));
        }
    }

    fn translate(&mut self, event: coap::Event<PeerKey>) -> Option<Event> {
        Some(match event {
            coap::Event::Request {
                exchange,
                peer,
                request,
            } => Event::Request {
                exchange: exchange.0,
                peer: self.remote(peer),
                request,
            },
            coap::Event::Response {
                handle,
                peer,
                response,
            } => {
                self.responses += 1;
                let own = self.calls.get(&handle)?.handle;
                if response.observe.is_none() {
                    self.ended(handle);
                }
                Event::Response {
                    handle: own,
                    peer: self.remote(peer),
                    response,
                }
            }
            coap::Event::Notification {
                handle,
                peer,
                response,
            } => {
                let own = self.calls.get(&handle)?.handle;
                if !response.code.is_success() {
                    self.ended(handle);
                }
                Event::Notification {
                    handle: own,
                    peer: self.remote(peer),
                    response,
                }
            }
            coap::Event::Failure {
                handle,
                peer,
                reason,
                detail,
            } => {
                let call = self.ended(handle)?;
                let (reason, detail) = self.cause(reason, detail);
                Event::Failure {
                    handle: call.handle,
                    peer: self.remote(peer),
                    reason,
                    detail,
                    offset: call.offset,
                }
            }
            coap::Event::Progress {
                handle,
                offset,
                size,
                repeated,
                ..
            } => {
                let call = self.calls.get_mut(&handle)?;
                call.offset = offset;
                Event::Progress {
                    handle: call.handle,
                    offset,
                    size,
                    repeated: repeated.into(),
                }
            }
            coap::Event::Cancelled { exchange, .. } => Event::Cancelled { exchange: exchange.0 },
        })
    }

    fn ended(&mut self, handle: Handle) -> Option<Call> {
        let call = self.calls.remove(&handle)?;
        self.handles.remove(&call.handle);
        Some(call)
    }

    /// Counters and table sizes by name.
    pub fn statistics(&self, into: &mut Vec<(&'static str, u64)>) {
        let stack = self.stack.statistics();
        let (site, offers) = (&self.site, &self.site.offers);
        into.extend([
            ("requests_received", site.counters.requests),
            ("responses_sent", self.answers + stack.local),
            ("responses_received", self.responses),
            ("retransmissions", stack.retransmissions),
            ("duplicates", stack.duplicates),
            ("malformed", stack.malformed),
            ("busy_answers", site.counters.busy + stack.refused),
            ("updates_answered", site.counters.updates),
            ("blocks_served", offers.blocks),
            ("blocks_pushed", stack.pushed_blocks),
            ("output_dropped", stack.dropped),
            ("panics", self.panics),
            ("news_superseded", self.reporter.superseded),
            ("peers", stack.peers as u64),
            ("calls", stack.calls as u64),
            ("exchanges", stack.exchanges as u64),
            ("message_ids", stack.seen as u64),
            ("assemblies", stack.assemblies as u64),
            ("answers_kept", stack.answers as u64),
            ("registrations", site.liveness.len() as u64),
            ("offers", offers.len() as u64),
            ("downloads", offers.downloads() as u64),
        ]);
        self.secure.statistics(into);
    }
}

mod secure;
#[cfg(test)]
mod secure_tests;
#[cfg(test)]
mod tests;
