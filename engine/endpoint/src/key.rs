//! The key that names a peer inside the engine, and what survives of it when its address or association changes.
//!
//! A plain peer is the listener that its datagrams come in by and its address. A secure one is its association and
//! the identity that it proved; a server that we connect to securely is its address. Every table holds these keys,
//! so they are small: of an identity stand 96 bits of the SHA-256 of its text.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use dtls::AssociationId;

/// Listeners are numbered below this; the bits above say of what kind a key is.
pub const MAX_LISTENERS: u16 = 1 << 14;
const ASSOCIATION: u16 = 1 << 15;
const SERVER: u16 = 1 << 14;

/// Part of the SHA-256 of an identity's text.
pub type IdentityHash = [u8; 12];

/// Who a peer is to the engine's tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// IP address (IPv4-mapped where IPv4) and scope, or association and hash of the identity.
    body: [u8; 20],
    port: u16,
    /// The number of the listener, and the kind.
    listener: u16,
}

/// What a key says that is not the way to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `CoAP` over UDP.
    Plain(SocketAddr),
    /// An association that a device opened with us.
    Association(AssociationId),
    /// A server that we open an association with.
    Server(SocketAddr),
}

fn split(ip: [u8; 16], scope: u32) -> [u8; 20] {
    let mut body = [0; 20];
    let (head, tail) = body.split_at_mut(16);
    head.copy_from_slice(&ip);
    tail.copy_from_slice(&scope.to_be_bytes());
    body
}

impl PeerKey {
    /// The peer at this address, reached by this listener.
    #[must_use]
    pub fn new(listener: u16, address: SocketAddr) -> Self {
        let (ip, scope) = match address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        Self {
            body: split(ip.octets(), scope),
            port: address.port(),
            listener: listener % MAX_LISTENERS,
        }
    }

    /// The server at this address, which this listener connects to securely.
    #[must_use]
    pub fn server(listener: u16, address: SocketAddr) -> Self {
        let mut key = Self::new(listener, address);
        key.listener |= SERVER;
        key
    }

    /// The peer of an association of this listener.
    #[must_use]
    pub fn association(listener: u16, id: AssociationId, identity: IdentityHash) -> Self {
        let mut body = [0; 20];
        let (head, tail) = body.split_at_mut(8);
        head.copy_from_slice(&id.0.to_be_bytes());
        tail.copy_from_slice(&identity);
        Self {
            body,
            port: 0,
            listener: (listener % MAX_LISTENERS) | ASSOCIATION,
        }
    }

    /// How to send to it.
    #[must_use]
    pub fn route(self) -> Route {
        if self.listener & ASSOCIATION != 0 {
            let (id, _) = self.body.split_first_chunk().unwrap_or((&[0; 8], &[]));
            Route::Association(AssociationId(u64::from_be_bytes(*id)))
        } else if self.listener & SERVER != 0 {
            Route::Server(self.socket_address())
        } else {
            Route::Plain(self.socket_address())
        }
    }

    fn socket_address(self) -> SocketAddr {
        let (ip, scope) = self.body.split_last_chunk().unwrap_or((&[], &[0; 4]));
        let ip: [u8; 16] = ip.try_into().unwrap_or_default();
        let ip = Ipv6Addr::from(ip);
        match ip.to_canonical() {
            IpAddr::V4(ip) => SocketAddr::from((ip, self.port)),
            IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, self.port, 0, u32::from_be_bytes(*scope))),
        }
    }

    /// Number of the listener.
    #[must_use]
    pub const fn listener(self) -> u16 {
        self.listener % MAX_LISTENERS
    }

    /// The identity of an association.
    #[must_use]
    pub fn identity(self) -> Option<IdentityHash> {
        let hash = self.body.last_chunk().copied();
        hash.filter(|_| self.listener & ASSOCIATION != 0)
    }

    /// Who it is, whatever its association: the identity, or without one the address.
    #[must_use]
    pub fn principal(self) -> Principal {
        if self.listener & ASSOCIATION == 0 {
            return Principal(self);
        }
        let mut key = self;
        let (head, _) = key.body.split_at_mut(8);
        head.fill(0);
        key.listener = ASSOCIATION;
        Principal(key)
    }

    /// Who may download what is offered to it: the identity, or without one the host.
    #[must_use]
    pub fn owner(self) -> Principal {
        if self.listener & ASSOCIATION != 0 {
            return self.principal();
        }
        let mut key = self;
        let (_, scope) = key.body.split_at_mut(16);
        scope.fill(0);
        key.port = 0;
        key.listener &= SERVER;
        Principal(key)
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.route(), self.listener())
    }
}

/// Somebody who keeps his rights when his association changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(PeerKey);

impl Principal {
    /// Whoever proves this identity.
    #[must_use]
    pub fn of_identity(identity: IdentityHash) -> Self {
        PeerKey::association(0, AssociationId(0), identity).principal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_goes_into_a_key_comes_out_of_it() {
        for text in ["192.0.2.1:5683", "[2001:db8::1]:5684", "[fe80::1%3]:61616"] {
            let address = address(text);
            assert_eq!(PeerKey::new(2, address).route(), Route::Plain(address));
            assert_eq!(PeerKey::server(2, address).route(), Route::Server(address));
        }
        let id = AssociationId(7 << 32 | 5);
        let key = PeerKey::association(3, id, [9; 12]);
        assert_eq!((key.route(), key.listener()), (Route::Association(id), 3));
    }

    #[test]
    fn key_is_compact() {
        assert_eq!(size_of::<PeerKey>(), 24);
    }

    #[test]
    fn listeners_keep_plain_peers_apart() {
        let address = address("192.0.2.1:5683");
        assert_ne!(PeerKey::new(0, address), PeerKey::new(1, address));
        assert_ne!(
            PeerKey::new(0, address).principal(),
            PeerKey::new(1, address).principal()
        );
        assert_ne!(PeerKey::new(0, address), PeerKey::server(0, address));
    }

    #[test]
    fn a_plain_peer_owns_what_its_host_owns() {
        let one = PeerKey::new(0, address("192.0.2.1:5683"));
        let other = PeerKey::new(1, address("192.0.2.1:40000"));
        let foreign = PeerKey::new(0, address("192.0.2.2:5683"));
        assert_eq!(one.owner(), other.owner());
        assert_ne!(one.owner(), foreign.owner());
    }

    #[test]
    fn an_identity_is_the_same_principal_in_every_association() {
        let one = PeerKey::association(0, AssociationId(1), [1; 12]);
        let other = PeerKey::association(4, AssociationId(2), [1; 12]);
        let foreign = PeerKey::association(0, AssociationId(1), [2; 12]);
        assert_ne!(one, other);
        assert_eq!(one.principal(), other.principal());
        assert_eq!(
            (one.owner(), one.owner()),
            (one.principal(), Principal::of_identity([1; 12]))
        );
        assert_ne!(one.principal(), foreign.principal());
    }
}
