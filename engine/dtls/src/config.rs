//! Settings of both roles: what is negotiated, timers, and the bound of every table and queue.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::certificate::Trust;
use crate::event::Secret;
use crate::keys::{CertifiedKey, SigningKey};
use crate::suite::Suite;

/// The connection ids that we give out (RFC 9146).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionIds {
    /// Bytes of each; 0 sends with the peer's id and asks for none. Below 4 a server runs out of them.
    pub length: usize,
    /// First byte of each, to find the node of a cluster by.
    pub node: Option<u8>,
}

/// A client's pre-shared key.
#[derive(Clone)]
pub struct PreSharedKey {
    /// At most 128 bytes.
    pub identity: Vec<u8>,
    /// The key.
    pub key: Secret,
}

impl fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreSharedKey").finish_non_exhaustive()
    }
}

/// Settings of a [`crate::Server`] or a [`crate::Client`].
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub struct Config {
    /// Suites taken or offered, the preferred one first. Those with CBC are left out unless they are put here: OMA's
    /// transport bindings demand them of servers and advise clients against them (1.2, 5.2.9.1 to 5.2.9.3).
    pub suites: Vec<Suite>,
    /// Client: our pre-shared key.
    pub psk: Option<PreSharedKey>,
    /// Our certificate chain and its key.
    pub certificate: Option<Arc<CertifiedKey>>,
    /// Our raw public key (RFC 7250).
    pub raw_public_key: Option<Arc<SigningKey>>,
    /// Whose certificates are taken.
    pub trust: Arc<Trust>,
    /// Raw public keys of peers are taken, if [`crate::Handler::peer`] knows them.
    pub accept_raw_public_keys: bool,
    /// Server: certificates without a path to an authority are taken, if [`crate::Handler::unverified`] knows them.
    pub accept_pinned_certificates: bool,
    /// Client: the name asked for (SNI) and looked for in the server's certificate.
    pub server_name: Option<String>,
    /// A peer without the extended master secret (RFC 7627) is refused.
    pub require_extended_master_secret: bool,
    /// Sessions are resumed for this long after a full handshake (RFC 5077), if at all.
    pub ticket_lifetime: Option<Duration>,
    /// Connection ids, if they are to be used at all.
    pub connection_ids: Option<ConnectionIds>,
    /// Client: asks for records of at most 512, 1024, 2048 or 4096 bytes (RFC 6066 4).
    pub max_fragment_length: Option<u16>,
    /// First wait for an answer to a flight; 9 s for constrained peers (RFC 7925 11).
    pub initial_timeout: Duration,
    /// The wait doubles up to this (RFC 6347 4.2.4.1).
    pub max_timeout: Duration,
    /// Resends of one flight, by our timer and by the peer's repetition each.
    pub max_resends: u32,
    /// A flight is not sent again sooner than this after it was sent.
    pub resend_gap: Duration,
    /// A handshake is given up at this age.
    pub handshake_lifetime: Duration,
    /// A final flight is kept this long: twice the TCP MSL (RFC 6347 4.2.4).
    pub linger: Duration,
    /// Largest UDP payload sent.
    pub mtu: usize,
    /// Hands every master secret to [`crate::Handler::key_log`]. For debugging only.
    pub key_log: bool,
    /// Time after which the secret of the cookies changes; a cookie is good for one to two of them.
    pub cookie_lifetime: Duration,
    /// Handshakes under way.
    pub max_half_open: usize,
    /// Handshakes under way with one IPv4 /24 or IPv6 /64.
    pub max_half_open_per_prefix: usize,
    /// A handshake without progress for this long makes room for another where a bound is reached. Constrained clients
    /// send a lost flight again after 9 s (RFC 7925 11), and never begin anew meanwhile; a busy server may need seconds
    /// for an answer itself.
    pub stall: Duration,
    /// Bytes of messages in reassembly in one handshake.
    pub max_reassembly: usize,
    /// Bytes of messages in reassembly in all handshakes.
    pub max_reassembly_total: usize,
    /// Handshakes with public keys begun in a second; more are shed.
    pub key_operations_per_second: u32,
    /// The same for one prefix.
    pub key_operations_per_second_per_prefix: u32,
    /// Established associations.
    pub max_sessions: usize,
    /// Established associations of one identity: many clients download over a second one. One more ends the one that
    /// was heard from least recently.
    pub max_associations_per_identity: usize,
    /// Events waiting for `poll_event`; above it handshakes are not begun.
    pub max_events: usize,
    /// Bytes waiting for transmission; above it datagrams are dropped as a network would.
    pub max_output: usize,
    /// Forged records of one association after which their sources are throttled.
    pub max_forged: u32,
    /// How long a source is not listened to after a forged record above that.
    pub throttle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            suites: vec![
                Suite::PskCcm8,
                Suite::PskGcm,
                Suite::EcdheEcdsaCcm8,
                Suite::EcdheEcdsaGcm,
            ],
            psk: None,
            certificate: None,
            raw_public_key: None,
            trust: Arc::default(),
            accept_raw_public_keys: false,
            accept_pinned_certificates: false,
            server_name: None,
            require_extended_master_secret: false,
            ticket_lifetime: Some(Duration::from_secs(24 * 3600)),
            connection_ids: Some(ConnectionIds {
                length: 8,
                node: None,
            }),
            max_fragment_length: None,
            initial_timeout: Duration::from_secs(9),
            max_timeout: Duration::from_secs(60),
            max_resends: 6,
            resend_gap: Duration::from_millis(250),
            handshake_lifetime: Duration::from_secs(120),
            linger: Duration::from_secs(240),
            mtu: 1200,
            key_log: false,
            cookie_lifetime: Duration::from_secs(60),
            max_half_open: 4096,
            max_half_open_per_prefix: 16,
            stall: Duration::from_secs(10),
            max_reassembly: 12 << 10,
            max_reassembly_total: 16 << 20,
            key_operations_per_second: 2000,
            key_operations_per_second_per_prefix: 200,
            max_sessions: 1 << 21,
            max_associations_per_identity: 2,
            max_events: 8192,
            max_output: 64 << 20,
            max_forged: 1 << 10,
            throttle: Duration::from_millis(100),
        }
    }
}

impl Config {
    /// Length of the connection ids in records to us.
    pub(crate) fn cid_length(&self) -> usize {
        self.connection_ids
            .map_or(0, |ids| ids.length.min(crate::cid::MAX_CID))
    }

    pub(crate) fn first_wait(&self) -> Duration {
        self.initial_timeout
            .clamp(Duration::from_millis(10), Duration::from_secs(3600))
    }

    /// Below 128 bytes the smallest record would not fit.
    pub(crate) fn payload(&self) -> usize {
        self.mtu.clamp(128, 65_000)
    }
}
