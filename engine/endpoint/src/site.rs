//! What is answered inside the engine: downloads, bare Updates, and 5.03 when Python has fallen behind.

use std::sync::Arc;

use coap::{Code, Local, Message, Reply, Verdict};

use crate::event::Download;
use crate::key::PeerKey;
use crate::liveness::Liveness;
use crate::offers::{Offers, Outcome};
use crate::shared::Shared;

/// The engine's own answers, asked by the stack before a request is stored anywhere.
pub struct Site {
    pub offers: Offers,
    pub liveness: Liveness,
    /// Paths whose blocks go to Python one by one.
    pub streams: Vec<Vec<String>>,
    /// Time of the batch in hand, seconds since the epoch.
    pub epoch: f64,
    /// Seconds since the engine's start.
    pub seconds: u32,
    /// Progress of downloads, to be emitted by the caller.
    pub news: Vec<Download>,
    /// The association that something was last sent to /rd by.
    pub registered_by: Option<PeerKey>,
    /// Requests collected in this batch that are not in the shared queue yet.
    pub collected: usize,
    pub counters: SiteCounters,
    shared: Arc<Shared>,
    max_events: usize,
    busy_max_age: u32,
}

/// What the site did since the start.
#[derive(Clone, Copy, Default)]
pub struct SiteCounters {
    pub requests: u64,
    pub busy: u64,
    pub updates: u64,
}

impl Site {
    pub fn new(shared: Arc<Shared>, offers: Offers, max_events: usize, busy_max_age: u32) -> Self {
        Self {
            offers,
            liveness: Liveness::default(),
            streams: Vec::new(),
            epoch: 0.0,
            seconds: 0,
            news: Vec::new(),
            registered_by: None,
            collected: 0,
            counters: SiteCounters::default(),
            shared,
            max_events,
            busy_max_age,
        }
    }

    fn is_streamed(&self, request: &Message<'_>) -> bool {
        request.options.block1.is_some()
            && self
                .streams
                .iter()
                .any(|path| request.options.path().eq(path.iter().map(String::as_str)))
    }
}

impl Local<PeerKey> for Site {
    fn request(&mut self, peer: PeerKey, request: &Message<'_>, reply: &mut Reply<'_>) -> Verdict {
        #[cfg(test)]
        assert!(!request.options.path_is(&["panic"]), "a test asked for it");
        self.counters.requests += 1;
        if request.code == Code::POST
            && peer.identity().is_some()
            && request.options.path().next() == Some("rd")
        {
            self.registered_by = Some(peer);
        }
        if self.liveness.refresh(peer, request, self.epoch) {
            self.counters.updates += 1;
            reply.code(Code::CHANGED);
            return Verdict::Answered;
        }
        if let Outcome::Answered(progress) = self.offers.answer(peer, request, self.seconds, reply) {
            self.news.extend(progress);
            return Verdict::Answered;
        }
        if self
            .shared
            .depths
            .is_busy(self.max_events.saturating_sub(self.collected))
        {
            self.counters.busy += 1;
            reply.busy(self.busy_max_age);
            return Verdict::Answered;
        }
        if self.is_streamed(request) {
            Verdict::PassStreamed
        } else {
            Verdict::Pass
        }
    }
}
