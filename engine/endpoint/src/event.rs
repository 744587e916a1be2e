//! What the engine reports to Python, built by its thread and converted in `drain`.

use std::sync::Arc;

use crate::blob::Digest;
use crate::key::PeerKey;

/// Why a request, observation or push ended without an answer, in words that do not change.
pub mod reason {
    /// The engine's own bound on requests in total or for one peer is reached; nothing was sent.
    pub const BUSY: &str = "busy";
    /// The request cannot be put into a message.
    pub const INVALID: &str = "invalid";
    /// No socket of the peer's address family.
    pub const PEER_GONE: &str = "peer-gone";
}

/// How far a peer has come in downloading a blob.
#[derive(Clone, Debug)]
pub struct Download {
    /// Who.
    pub peer: PeerKey,
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
        peer: PeerKey,
        /// What.
        request: coap::Request,
    },
    /// The answer to a request, or the end of a push.
    Response {
        /// Whose.
        handle: u64,
        /// From whom.
        peer: PeerKey,
        /// The answer.
        response: coap::Response,
    },
    /// No answer will come.
    Failure {
        /// Whose.
        handle: u64,
        /// The peer asked.
        peer: PeerKey,
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
        peer: PeerKey,
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
}
