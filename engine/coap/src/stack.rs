//! The endpoint as its caller sees it, and the tables that its parts share.

use std::collections::VecDeque;
use std::time::Duration;

use crate::answers::Answers;
use crate::assembly::Assemblies;
use crate::block;
use crate::call::Call;
use crate::code::Token;
use crate::config::{Config, Times};
use crate::dedup::{Dedup, Memory, Replay};
use crate::event::{Event, Peer, Transmit};
use crate::exchange::Open;
use crate::outbox::Outbox;
use crate::peers::Peers;
use crate::random::{Keyed, Map, Random};
use crate::time::Instant;
use crate::timers::{Owner, Timers};

/// Expired memory is given back in steps of this length.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Counters since the start, and the present size of each table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Datagrams taken in.
    pub received: u64,
    /// Datagrams put out.
    pub sent: u64,
    /// Datagrams dropped because [`Config::max_output`] was reached.
    pub dropped: u64,
    /// Datagrams that were not a message, or a message that made no sense.
    pub malformed: u64,
    /// Duplicates that were recognized.
    pub duplicates: u64,
    /// Retransmissions of ours.
    pub retransmissions: u64,
    /// Requests of peers that were refused with 5.03.
    pub refused: u64,
    /// Requests of peers answered by [`crate::Local`].
    pub local: u64,
    /// Blocks of pushes and large request bodies acknowledged.
    pub pushed_blocks: u64,
    /// Requests, observations and pushes of ours now.
    pub calls: usize,
    /// Peers with state now.
    pub peers: usize,
    /// Requests of peers waiting, and observations of peers, now.
    pub exchanges: usize,
    /// Message ids remembered now.
    pub seen: usize,
    /// Request bodies in assembly now.
    pub assemblies: usize,
    /// Large answers kept now.
    pub answers: usize,
    /// Timers armed now.
    pub timers: usize,
    /// Events waiting now.
    pub events: usize,
}

/// One CoAP endpoint, client and server at once.
///
/// A key `P` names one peer for as long as anything of it may be under way: a caller that gives out numbers for
/// security associations must not use one again within `EXCHANGE_LIFETIME`.
#[derive(Debug)]
pub struct Stack<P> {
    pub(crate) config: Config,
    pub(crate) times: Times,
    pub(crate) szx: u8,
    pub(crate) random: Random,
    pub(crate) keys: Keyed,
    pub(crate) out: Outbox<P>,
    pub(crate) events: VecDeque<Event<P>>,
    pub(crate) timers: Timers,
    pub(crate) dedup: Dedup<P>,
    pub(crate) peers: Peers<P>,
    /// Message IDs of ours that may be answered by ACK or RST.
    pub(crate) mids: Map<(P, u16), Owner>,
    /// Tokens of ours in flight.
    pub(crate) tokens: Map<(P, Token), u64>,
    pub(crate) calls: Map<u64, Box<Call<P>>>,
    pub(crate) exchanges: Map<u64, Box<Open<P>>>,
    /// Tokens of peers that observe.
    pub(crate) observers: Map<(P, Token), u64>,
    pub(crate) assemblies: Assemblies<P>,
    pub(crate) answers: Answers<P>,
    pub(crate) counters: Statistics,
    sweep_at: Option<Instant>,
    last_id: u64,
}

impl<P: Peer> Stack<P> {
    /// An endpoint; `seed` determines message ids, tokens, back-off and hash order.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let keys = Keyed::new([random.next(), random.next()]);
        Self {
            times: config.times(),
            szx: block::szx(config.block_size),
            random,
            keys,
            out: Outbox::new(config.max_output),
            events: VecDeque::new(),
            timers: Timers::default(),
            dedup: Dedup::new(keys),
            peers: Peers::new(keys, config.max_peers),
            mids: Map::with_hasher(keys),
            tokens: Map::with_hasher(keys),
            calls: Map::with_hasher(keys),
            exchanges: Map::with_hasher(keys),
            observers: Map::with_hasher(keys),
            assemblies: Assemblies::new(keys),
            answers: Answers::new(keys),
            counters: Statistics::default(),
            sweep_at: None,
            last_id: 0,
            config,
        }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The datagrams that wait to be sent, oldest first, for a batch (`sendmmsg`); then call [`Stack::sent`].
    pub fn transmits(&self) -> impl Iterator<Item = Transmit<'_, P>> {
        self.out.iter()
    }

    /// The first `count` of [`Stack::transmits`] have been sent (or dropped); their buffer is used again.
    pub fn sent(&mut self, count: usize) {
        self.out.advance(count);
    }

    /// The next datagram to be sent, one at a time; it counts as sent. Call it until it gives `None`.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_, P>> {
        self.out.pop()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event<P>> {
        self.events.pop_front()
    }

    /// When [`Stack::handle_timeout`] wants to be called; calling it earlier or later does no harm.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        match (self.timers.next(), self.sweep_at) {
            (Some(timer), Some(sweep)) => Some(timer.min(sweep)),
            (timer, sweep) => timer.or(sweep),
        }
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(owner) = self.timers.pop(now) {
            match owner {
                Owner::Call(id) => self.call_timer(id, now),
                Owner::Exchange(id) => self.exchange_timer(id, now),
            }
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.dedup.sweep(now);
            self.assemblies.sweep(&self.config, now);
            self.answers.sweep(&self.config, now);
            self.peers.sweep(now);
            let clean = self.dedup.len() == 0
                && self.assemblies.len() == 0
                && self.answers.len() == 0
                && self.peers.is_idle();
            self.sweep_at = (!clean).then_some(now + SWEEP_INTERVAL);
        }
    }

    /// Drops all that concerns a peer. Its handles end with [`crate::Reason::PeerGone`], its observations with
    /// [`Event::Cancelled`]; its requests that wait for an answer are forgotten.
    pub fn forget_peer(&mut self, peer: P, now: Instant) {
        for owner in self.peers.members(peer) {
            match owner {
                Owner::Call(id) => self.lose_call(id, now),
                Owner::Exchange(id) => self.lose_exchange(id, now),
            }
        }
    }

    /// Counters and table sizes.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            sent: self.out.sent,
            dropped: self.out.dropped,
            calls: self.calls.len(),
            peers: self.peers.len(),
            exchanges: self.exchanges.len(),
            seen: self.dedup.len(),
            assemblies: self.assemblies.len(),
            answers: self.answers.len(),
            timers: self.timers.len(),
            events: self.events.len(),
            ..self.counters
        }
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Sees to it that what expires is given back.
    pub(crate) fn schedule_sweep(&mut self, now: Instant) {
        self.sweep_at.get_or_insert(now + SWEEP_INTERVAL);
    }

    pub(crate) fn remember(
        &mut self,
        key: (P, u16),
        datagram: &[u8],
        confirmable: bool,
        replay: Replay,
        now: Instant,
    ) {
        let times = &self.times;
        let lifetime = if confirmable {
            times.exchange_lifetime
        } else {
            times.non_lifetime
        };
        let memory = Memory {
            confirmable,
            lifetime,
            config: &self.config,
            now,
        };
        self.dedup.remember(key, datagram, replay, &memory);
        self.schedule_sweep(now);
    }

    /// A Message ID for a message to this peer.
    pub(crate) fn mid(&mut self, peer: P, now: Instant) -> u16 {
        let mid = self.peers.mid(peer, now);
        self.schedule_sweep(now);
        mid
    }
}
