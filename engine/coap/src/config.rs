//! Settings: transmission parameters of RFC 7252 4.8 and the bounds of every queue and table.

use std::time::Duration;

/// Settings of a [`crate::Stack`]. `Default` gives the RFC's values.
#[derive(Clone, Debug)]
pub struct Config {
    /// `ACK_TIMEOUT`
    pub ack_timeout: Duration,
    /// `ACK_RANDOM_FACTOR`, at least 1
    pub ack_random_factor: f64,
    /// `MAX_RETRANSMIT`
    pub max_retransmit: u32,
    /// `NSTART`: requests without acknowledgement or answer at one peer.
    pub nstart: usize,
    /// `MAX_LATENCY`
    pub max_latency: Duration,
    /// Time after which a CON request that has no answer yet gets an empty ACK; an answer then goes separately.
    pub processing_delay: Duration,
    /// A push or a large request body fails after this time without progress.
    pub transfer_timeout: Duration,
    /// Patience with a peer that answers 5.03 to a push; real devices lock themselves for 300 s.
    pub busy_timeout: Duration,
    /// Largest block sent or asked for: 16, 32, … 1024 bytes; other values are rounded down.
    pub block_size: u16,
    /// A push reports its progress each time that this many bytes more are acknowledged.
    pub progress_bytes: u64,
    /// Bytes of one reassembled body, in either role.
    pub max_body: usize,
    /// Request bodies in assembly at one time.
    pub max_assemblies: usize,
    /// Bytes of all request bodies in assembly.
    pub max_assembly_bytes: usize,
    /// Large answers kept for Block2 requests.
    pub max_answers: usize,
    /// Bytes of all large answers kept.
    pub max_answer_bytes: usize,
    /// Peers with requests of ours.
    pub max_peers: usize,
    /// Requests of ours waiting for one peer.
    pub max_queued: usize,
    /// Requests, observations and pushes of ours in total.
    pub max_calls: usize,
    /// Requests of peers that wait for the application, and observations of peers.
    pub max_exchanges: usize,
    /// Message ids remembered for deduplication; the oldest is forgotten first.
    pub max_seen: usize,
    /// Bytes of all answers remembered for deduplication.
    pub max_seen_bytes: usize,
    /// Events waiting for [`crate::Stack::poll_event`]; above it new requests get 5.03.
    pub max_events: usize,
    /// Max-Age in seconds of the stack's own 5.03.
    pub busy_max_age: u32,
    /// Bytes waiting for transmission; above it datagrams are dropped as a network would.
    pub max_output: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(2),
            ack_random_factor: 1.5,
            max_retransmit: 4,
            nstart: 1,
            max_latency: Duration::from_secs(100),
            processing_delay: Duration::from_millis(500),
            transfer_timeout: Duration::from_secs(300),
            busy_timeout: Duration::from_secs(330),
            block_size: 1024,
            progress_bytes: 65536,
            max_body: 1 << 20,
            max_assemblies: 1024,
            max_assembly_bytes: 64 << 20,
            max_answers: 1024,
            max_answer_bytes: 64 << 20,
            max_peers: 1 << 20,
            max_queued: 64,
            max_calls: 1 << 20,
            max_exchanges: 1 << 18,
            max_seen: 1 << 17,
            max_seen_bytes: 32 << 20,
            max_events: 8192,
            busy_max_age: 5,
            max_output: 64 << 20,
        }
    }
}

impl Config {
    pub(crate) fn times(&self) -> Times {
        Times {
            ack: self.ack_wait(),
            spread: self.max_ack_wait().saturating_sub(self.ack_wait()),
            retransmissions: self.retransmissions(),
            exchange_lifetime: self.exchange_lifetime(),
            non_lifetime: self.non_lifetime(),
            transmit_wait: self.max_transmit_wait(),
        }
    }

    /// `ACK_TIMEOUT` × `ACK_RANDOM_FACTOR`: the longest first wait for an acknowledgement.
    #[must_use]
    pub fn max_ack_wait(&self) -> Duration {
        self.ack_wait().mul_f64(self.random_factor())
    }

    /// `ACK_TIMEOUT`, kept within a range in which no derived time overflows.
    fn ack_wait(&self) -> Duration {
        self.ack_timeout
            .clamp(Duration::from_millis(1), Duration::from_secs(3600))
    }

    fn random_factor(&self) -> f64 {
        if self.ack_random_factor.is_finite() {
            self.ack_random_factor.clamp(1.0, 16.0)
        } else {
            1.0
        }
    }

    fn retransmissions(&self) -> u32 {
        self.max_retransmit.min(16)
    }

    /// `MAX_TRANSMIT_SPAN` (RFC 7252 4.8.2), 45 s by default.
    #[must_use]
    pub fn max_transmit_span(&self) -> Duration {
        self.max_ack_wait() * ((1 << self.retransmissions()) - 1)
    }

    /// `MAX_TRANSMIT_WAIT`, 93 s by default.
    #[must_use]
    pub fn max_transmit_wait(&self) -> Duration {
        self.max_ack_wait() * ((2 << self.retransmissions()) - 1)
    }

    /// `EXCHANGE_LIFETIME`, 247 s by default.
    #[must_use]
    pub fn exchange_lifetime(&self) -> Duration {
        self.max_transmit_span()
            .saturating_add(self.max_latency.saturating_mul(2))
            .saturating_add(self.ack_wait())
    }

    /// `NON_LIFETIME`, 145 s by default.
    #[must_use]
    pub fn non_lifetime(&self) -> Duration {
        self.max_transmit_span().saturating_add(self.max_latency)
    }
}

/// What is derived from the settings and needed with every message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) ack: Duration,
    /// From `ack` to the longest first wait.
    pub(crate) spread: Duration,
    pub(crate) retransmissions: u32,
    pub(crate) exchange_lifetime: Duration,
    pub(crate) non_lifetime: Duration,
    pub(crate) transmit_wait: Duration,
}
