//! What goes between the crate and its caller: identities, look-ups, events.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A device.
    Client,
    /// What devices connect to.
    Server,
}

impl Role {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// An established association. The number is not used again in the life of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssociationId(pub u64);

impl AssociationId {
    /// Its place: a small number that no other association of its owner has now, for tables beside the owner's.
    #[must_use]
    pub const fn slot(self) -> u64 {
        self.0 & 0xffff_ffff
    }
}

/// A handshake that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandshakeId(pub u64);

/// A pre-shared key.
pub type Secret = Zeroizing<Vec<u8>>;

/// The keys of an identity. While keys are rotated there are two: devices come over one by one.
#[derive(Clone, PartialEq, Eq)]
pub struct PskKeys {
    /// The present key.
    pub current: Secret,
    /// The key before, where it is still good.
    pub former: Option<Secret>,
}

impl PskKeys {
    /// One key.
    #[must_use]
    pub const fn new(current: Secret) -> Self {
        Self {
            current,
            former: None,
        }
    }
}

impl fmt::Debug for PskKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PskKeys")
            .field("has_former", &self.former.is_some())
            .finish_non_exhaustive()
    }
}

/// Who a peer has proved to be.
///
/// The same fingerprint is the same identity: the names follow from the certificate.
#[derive(Clone, Debug)]
pub enum Identity {
    /// The identity of a pre-shared key.
    Psk(Box<[u8]>),
    /// SHA-256 of a `SubjectPublicKeyInfo`.
    RawPublicKey([u8; 32]),
    /// An end-entity certificate with a path to a trust anchor, or one that is known by itself.
    Certificate {
        /// SHA-256 of the certificate.
        fingerprint: [u8; 32],
        /// Its names, at most eight: the subject's common name first (empty without one), then the DNS and URI
        /// names.
        names: Box<[Box<str>]>,
    },
}

impl Identity {
    fn key(&self) -> (u8, &[u8]) {
        match self {
            Self::Psk(identity) => (0, identity),
            Self::RawPublicKey(fingerprint) => (1, fingerprint),
            Self::Certificate { fingerprint, .. } => (2, fingerprint),
        }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Identity {}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Identity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// Here it is.
    Known(T),
    /// There is none.
    Unknown,
    /// An answer comes later, to the event [`Event::LookUp`]. A client takes this for `Unknown`.
    Later,
}

/// What is asked in [`Event::LookUp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// The keys of an identity, an [`Identity::Psk`]; answer with [`crate::Server::provide_psk`].
    Psk(Arc<Identity>),
    /// Whether a peer is taken; answer with [`crate::Server::provide_verdict`].
    Peer {
        /// Fingerprint and names.
        identity: Arc<Identity>,
        /// The certificate or `SubjectPublicKeyInfo`; empty where a session is to be resumed.
        der: Box<[u8]>,
        /// False for a certificate without a path to an authority: nothing in it counts but that it is this one.
        verified: bool,
    },
}

/// The association that a datagram came through.
#[derive(Clone, Copy, Debug)]
pub struct Association<'a> {
    /// Its number: the key of the peer for layers above.
    pub id: AssociationId,
    /// Where the peer is now.
    pub address: SocketAddr,
    /// Who the peer is.
    pub identity: &'a Arc<Identity>,
    /// Record number of the datagram, for [`crate::Server::confirm_fresh`].
    pub sequence: u64,
    /// False after a restore without an exact replay window: the datagram may be a replay from before, so nothing
    /// with side effects may come of it.
    pub fresh: bool,
}

/// What the crate asks its caller for while it works on a datagram.
pub trait Handler {
    /// The key of an identity, or two while they are rotated.
    fn psk(&mut self, identity: &[u8]) -> Answer<PskKeys>;

    /// Whether a peer with this certificate or `SubjectPublicKeyInfo` is taken. Paths and dates of certificates
    /// have been checked. `der` is empty where a session is to be resumed, for which nothing but the identity is
    /// presented again; when it is not taken, a full handshake follows.
    fn peer(&mut self, identity: &Identity, der: &[u8]) -> Answer<()>;

    /// Whether a peer with this certificate is taken though no path leads from it to an authority. Nothing that it
    /// says is vouched for: only who knows this very certificate may take it. Its dates and its use have been checked.
    /// Asked only with [`crate::Config::accept_pinned_certificates`].
    fn unverified(&mut self, _identity: &Identity, _der: &[u8]) -> Answer<()> {
        Answer::Unknown
    }

    /// Seconds since 1970, for the validity of certificates.
    fn unix_time(&mut self) -> u64;

    /// An authentic datagram.
    fn datagram(&mut self, from: &Association<'_>, payload: &[u8]);

    /// A master secret, only where [`crate::Config::key_log`] is set: the client's random and the secret of a line
    /// in the format of `SSLKEYLOGFILE`.
    fn key_log(&mut self, _client_random: &[u8; 32], _master: &[u8; 48]) {}
}

/// Why an association ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// `close` was called.
    Closed,
    /// The peer sent `close_notify` or a fatal alert.
    ClosedByPeer,
    /// Newer associations of the same identity, or one at the same address, took its place.
    Replaced,
    /// The keys have done all that they may.
    Exhausted,
    /// The peer sent a record longer than negotiated.
    Overflow,
}

impl Reason {
    /// The kebab-case word used in logs and above this crate.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClosedByPeer => "closed-by-peer",
            Self::Replaced => "replaced",
            Self::Exhausted => "exhausted",
            Self::Overflow => "record-overflow",
        }
    }
}

/// What happened, from `poll_event`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A handshake is complete.
    Established {
        /// The new association.
        association: AssociationId,
        /// Where the peer is.
        address: SocketAddr,
        /// Who it is.
        identity: Arc<Identity>,
    },
    /// The newest authentic record came from another address (RFC 9146 6). Until one round trip with it is done a
    /// single spoofed copy could be the reason: send it no large burst.
    Moved {
        /// Which association.
        association: AssociationId,
        /// Where it was.
        from: SocketAddr,
        /// Where it is.
        to: SocketAddr,
    },
    /// An association is gone.
    Closed {
        /// Which.
        association: AssociationId,
        /// Why.
        reason: Reason,
    },
    /// A handshake failed. For operators; what the peer is told may be less.
    Failed {
        /// With whom.
        address: SocketAddr,
        /// A kebab-case word.
        reason: &'static str,
        /// What the peer claims to be, where it has said so; unproved.
        claimed: Option<Arc<Identity>>,
    },
    /// A handshake waits for an answer.
    LookUp {
        /// To answer with.
        handshake: HandshakeId,
        /// With whom.
        address: SocketAddr,
        /// What is asked.
        look_up: LookUp,
    },
    /// An exported association has used half of its reserved numbers: export it again.
    Reserve {
        /// Which.
        association: AssociationId,
    },
    /// An association has seen more forged records than [`crate::Config::max_forged`]; their sources are throttled.
    Suspicious {
        /// Which.
        association: AssociationId,
        /// The source of the latest.
        address: SocketAddr,
    },
}

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No such association.
    Unknown,
    /// Longer than the peer takes.
    TooLong,
    /// The reserved numbers are used up: export, store, confirm.
    Reserved,
    /// The keys have sent all they may; the association is closed.
    Exhausted,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the association is no longer known",
            Self::TooLong => "the datagram is longer than the peer takes",
            Self::Reserved => "the reserved record numbers are used up until an export is confirmed",
            Self::Exhausted => "the keys have sent all the records they may",
        })
    }
}

impl std::error::Error for SendError {}
