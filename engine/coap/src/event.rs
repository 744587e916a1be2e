//! What the stack tells the application, and what the application hands in besides messages.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use crate::code::Code;
use crate::message::{Request, Response};

/// Key of the other side: an address, or a number that the caller gave to a security association.
pub trait Peer: Copy + Eq + Hash + fmt::Debug {}

impl<T: Copy + Eq + Hash + fmt::Debug> Peer for T {}

/// A request, observation or push of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u64);

/// A request of a peer that waits for the application, or an observation that the application accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exchange(pub u64);

/// Why a request, observation or push ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No acknowledgement, no answer, or no progress in time.
    Timeout,
    /// The peer sent a Reset.
    Reset,
    /// [`crate::Stack::forget_peer`] was called.
    PeerGone,
    /// [`crate::Stack::cancel`] was called, or the peer ended an observation without an error.
    Cancelled,
    /// The peer takes no body of this size (4.13), or its answer is above [`crate::Config::max_body`].
    TooLarge,
    /// The peer broke the protocol.
    Protocol,
}

impl Reason {
    /// The kebab-case word used in logs and above this crate.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::PeerGone => "peer-gone",
            Self::Cancelled => "cancelled",
            Self::TooLarge => "too-large",
            Self::Protocol => "protocol",
        }
    }
}

/// What happened, from [`crate::Stack::poll_event`].
///
/// A handle ends with exactly one `Response` or `Failure`, except that an observation whose `Response` carries
/// `observe` goes on with `Notification`s and ends with one of an error code or with a `Failure`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<P> {
    /// A peer asks; answer with [`crate::Stack::respond`].
    Request {
        /// To answer with.
        exchange: Exchange,
        /// Who asks.
        peer: P,
        /// What is asked.
        request: Request,
    },
    /// The answer to a request of ours, or the final answer of a push; error codes are answers too.
    Response {
        /// Whose answer.
        handle: Handle,
        /// Who answered.
        peer: P,
        /// The answer, its body complete.
        response: Response,
    },
    /// A fresh notification (RFC 7641 3.4); one with an error code is the last.
    Notification {
        /// The observation.
        handle: Handle,
        /// Who notified.
        peer: P,
        /// The notification, its body complete.
        response: Response,
    },
    /// No answer will come.
    Failure {
        /// Whose end.
        handle: Handle,
        /// The peer asked.
        peer: P,
        /// Why.
        reason: Reason,
        /// For people.
        detail: &'static str,
    },
    /// A push has come further. One always precedes the end of a push.
    Progress {
        /// The push.
        handle: Handle,
        /// The peer written to.
        peer: P,
        /// Bytes acknowledged, counted from the start of the source.
        offset: u64,
        /// Bytes of the source.
        size: u64,
        /// Blocks that were sent more than once so far, message-layer retransmissions apart.
        repeated: u32,
    },
    /// The peer's interest in an accepted observation has ended (Observe 1, RST, silence, or a new registration
    /// under the same token); the exchange is no longer known.
    Cancelled {
        /// The observation.
        exchange: Exchange,
        /// The former observer.
        peer: P,
    },
}

/// Why the stack refused to start something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// [`crate::Config::max_queued`] requests wait for this peer.
    QueueFull,
    /// [`crate::Config::max_calls`] or [`crate::Config::max_peers`] is reached.
    TooMany,
    /// The request cannot be put into a message; the text says what is wrong.
    Invalid(&'static str),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "too many requests wait for this peer",
            Self::TooMany => "too many requests in total",
            Self::Invalid(what) => what,
        })
    }
}

impl std::error::Error for RequestError {}

/// The exchange is not known (any more): answered, expired, cancelled, or its peer forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownExchange;

impl fmt::Display for UnknownExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the exchange is no longer known")
    }
}

impl std::error::Error for UnknownExchange {}

/// Constant bytes to send from, such as a memory-mapped file.
pub trait Source: Send + Sync {
    /// All the bytes; the same ones on every call.
    fn bytes(&self) -> &[u8];
}

impl<T: AsRef<[u8]> + Send + Sync> Source for T {
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }
}

/// A Block1 transfer out of a [`Source`].
#[derive(Clone)]
pub struct Push {
    /// PUT or POST.
    pub code: Code,
    /// Uri-Path, a segment each.
    pub path: Vec<String>,
    /// Uri-Query, an argument each.
    pub query: Vec<String>,
    /// Content-Format.
    pub content_format: Option<u16>,
    /// What to send.
    pub source: Arc<dyn Source>,
    /// First byte to send; rounded down to a whole block.
    pub offset: u64,
    /// Block size to begin with: 16, 32, … 1024; shrinks when the peer asks, never grows.
    pub block_size: u16,
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push")
            .field("path", &self.path)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// A datagram to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a, P> {
    /// Where to.
    pub peer: P,
    /// What.
    pub datagram: &'a [u8],
}
