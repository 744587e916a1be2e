//! What Python asks of the engine's thread.

use std::net::SocketAddr;
use std::sync::Arc;

use coap::{Delivery, Exchange, Request, Response};
use dtls::{AssociationId, Identity, Secret};
use socket2::Socket;

use crate::blob::{Blob, Digest};
use crate::key::{IdentityHash, PeerKey, Principal};
use crate::secure::Gate;
use crate::security::Secured;

/// Whom an action is about.
pub enum To {
    /// This very peer.
    Key(PeerKey),
    /// Whoever has an association with this identity now.
    Identity {
        /// The identity.
        hash: IdentityHash,
        /// Its text.
        name: Arc<str>,
        /// Where it was when the caller heard of it.
        address: SocketAddr,
    },
}

/// A socket to serve.
pub struct Listener {
    pub socket: Socket,
    /// What its datagrams go through.
    pub gate: Gate,
    /// Associations that were restored, each with its row.
    pub restored: Vec<(AssociationId, u64)>,
}

/// What concerns DTLS.
pub enum SecurityAction {
    /// Credentials from now on.
    Secure(Box<Secured>),
    /// The keys of an identity, if it is known.
    Psk { handshake: u64, keys: Vec<Secret> },
    /// Whether a peer is taken.
    Verdict { handshake: u64, accepted: bool },
    /// Ask again next time.
    ForgetKey(Identity),
    /// End all that an identity has.
    Revoke(Identity),
    /// Exports that are durable: record and mark.
    Confirm(Vec<(u64, u64)>),
}

/// One action, applied in the order of submission.
pub enum Action {
    /// Serve this socket; listeners are numbered in the order of these actions.
    Listen(Box<Listener>),
    /// Send a request.
    Request {
        handle: u64,
        to: To,
        request: Box<Request>,
        delivery: Delivery,
    },
    /// Start a push.
    Push {
        handle: u64,
        to: To,
        push: Box<coap::Push>,
    },
    /// End a request, a push or an observation.
    Cancel { handle: u64 },
    /// Answer a request.
    Respond {
        exchange: Exchange,
        response: Box<Response>,
    },
    /// Notify an observer.
    Notify {
        exchange: Exchange,
        response: Box<Response>,
        confirmable: bool,
    },
    /// Hand Block1 blocks of this path over one by one.
    Stream { path: Vec<String> },
    /// Let somebody download.
    Offer {
        path: Vec<String>,
        blob: Arc<Blob>,
        owner: Principal,
    },
    /// Take an offer back.
    Withdraw { path: Vec<String>, owner: Principal },
    /// Let go of a blob.
    RemoveBlob { digest: Digest },
    /// Answer bare Updates.
    Keep { location: String, owner: Principal },
    /// The same for many.
    KeepAll(Vec<(String, Principal)>),
    /// Leave them to Python again.
    Drop { location: String },
    /// The other side is no longer there.
    ForgetPeer { to: To },
    /// Do something about DTLS.
    Security(SecurityAction),
}
