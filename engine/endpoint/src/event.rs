//! What the engine reports to Python, built by its thread and converted in `drain`.

use std::net::SocketAddr;
use std::sync::Arc;

use dtls::Identity;

use crate::blob::Digest;
use crate::identity;
use crate::key::{PeerKey, Route};

/// Why a request, observation or push ended without an answer, in words that do not change.
pub mod reason {
    /// The engine's own bound on requests in total or for one peer is reached; nothing was sent.
    pub const BUSY: &str = "busy";
    /// The request cannot be put into a message.
    pub const INVALID: &str = "invalid";
    /// The identity has no association.
    pub const PEER_GONE: &str = "peer-gone";
    /// The association that the request waited for did not come about.
    pub const HANDSHAKE: &str = "handshake";
}

/// Who a peer is beyond its address.
#[derive(Clone, Debug)]
pub enum Claim {
    /// It has proved this in a handshake.
    Proved(Arc<Identity>),
    /// The caller asked for the peer with this text.
    Named(Arc<str>),
}

impl Claim {
    /// The identity as text.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        match self {
            Self::Proved(identity) => identity::text(identity).into(),
            Self::Named(text) => Arc::clone(text),
        }
    }

    /// The names in the certificate, the common name first (empty without one).
    #[must_use]
    pub fn names(&self) -> &[Box<str>] {
        match self {
            Self::Proved(identity) => identity::names(identity),
            Self::Named(_) => &[],
        }
    }
}

/// The other side of an event.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Its key.
    pub key: PeerKey,
    /// Where it was last.
    pub address: SocketAddr,
    /// Who it is, where it comes with an identity.
    pub claim: Option<Claim>,
}

impl Remote {
    /// What the key alone tells.
    #[must_use]
    pub fn of_key(key: PeerKey) -> Self {
        let address = match key.route() {
            Route::Plain(address) | Route::Server(address) => address,
            Route::Association(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        Self {
            key,
            address,
            claim: None,
        }
    }
}

/// How far a peer has come in downloading a blob.
#[derive(Clone, Debug)]
pub struct Download {
    /// Who.
    pub peer: Remote,
    /// Under which path.
    pub path: Arc<[String]>,
    /// Which blob.
    pub digest: Digest,
    /// Bytes up to the end of the furthest block served.
    pub offset: u64,
    /// Bytes of the blob.
    pub size: u64,
    /// Blocks served again, retransmissions apart.
    pub repeated: u64,
}

/// One event. `handle` is a number that [`crate::Engine::request`] or [`crate::Engine::push`] gave out.
#[derive(Debug)]
pub enum Event {
    /// Answer it with [`crate::Engine::respond`].
    Request {
        /// To answer with.
        exchange: u64,
        /// Who asks.
        peer: Remote,
        /// What.
        request: coap::Request,
    },
    /// The answer to a request, or the end of a push.
    Response {
        /// Whose.
        handle: u64,
        /// From whom.
        peer: Remote,
        /// The answer.
        response: coap::Response,
    },
    /// No answer will come.
    Failure {
        /// Whose.
        handle: u64,
        /// The peer asked.
        peer: Remote,
        /// See [`reason`] and [`coap::Reason`].
        reason: &'static str,
        /// For people.
        detail: &'static str,
        /// Bytes of a push that were acknowledged.
        offset: u64,
    },
    /// A notification.
    Notification {
        /// The observation.
        handle: u64,
        /// From whom.
        peer: Remote,
        /// Its content.
        response: coap::Response,
    },
    /// A push has come further.
    Progress {
        /// The push.
        handle: u64,
        /// Bytes acknowledged.
        offset: u64,
        /// Bytes in all.
        size: u64,
        /// Blocks sent again.
        repeated: u64,
    },
    /// A download has come further.
    Download(Download),
    /// An accepted observation has ended.
    Cancelled {
        /// Whose.
        exchange: u64,
    },
    /// Registrations refreshed, each with seconds since the epoch.
    Alive(Vec<(Arc<str>, f64)>),
    /// News of handshakes, associations and what is stored of them.
    Security(SecurityEvent),
}

/// An association as it is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionExport {
    /// The row.
    pub record: u64,
    /// Its generation.
    pub generation: u64,
    /// To confirm with.
    pub mark: u64,
    /// What to store.
    pub sealed: Vec<u8>,
}

/// News of handshakes and associations. A `handshake` is a number to answer with.
#[derive(Debug)]
pub enum SecurityEvent {
    /// A handshake waits for [`crate::Engine::provide_psk`] or, where it is no PSK, [`crate::Engine::provide_verdict`].
    LookUp {
        /// To answer with.
        handshake: u64,
        /// With whom.
        address: SocketAddr,
        /// Who the peer claims to be; of a certificate dates and use have been checked, but not yet the signature.
        identity: Arc<Identity>,
        /// The certificate or `SubjectPublicKeyInfo`; empty where a session is resumed.
        der: Box<[u8]>,
        /// False for a certificate without a path to an authority.
        verified: bool,
    },
    /// A device has an association.
    Established {
        /// Who.
        identity: Arc<Identity>,
        /// Where.
        address: SocketAddr,
    },
    /// It has it no longer.
    Ended {
        /// Whose.
        identity: Arc<Identity>,
        /// A kebab-case word.
        reason: &'static str,
    },
    /// A handshake came to nothing.
    HandshakeFailed {
        /// With whom.
        address: SocketAddr,
        /// A kebab-case word.
        reason: &'static str,
        /// Unproved, where it was said.
        identity: Option<Arc<Identity>>,
    },
    /// Many forged records came for an association.
    Suspicious {
        /// Whose.
        identity: Arc<Identity>,
        /// Source of the latest.
        address: SocketAddr,
    },
    /// What one turn of the engine's thread exported, to be stored; then [`crate::Engine::confirm_sessions`].
    SessionExports(Vec<SessionExport>),
    /// What is stored of it has no use any more.
    SessionGone {
        /// The row.
        record: u64,
    },
    /// A line for a file in the format of `SSLKEYLOGFILE`.
    KeyLog(String),
}
