//! The key that names a peer inside the engine: the listener that its datagrams come in by, and its address.
//!
//! Equality of peers must change with the security association; a session number joins the key with DTLS.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// 24 bytes, because every table of the engine holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// IPv4 addresses stand IPv4-mapped.
    ip: [u8; 16],
    scope: u32,
    port: u16,
    listener: u16,
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
            ip: ip.octets(),
            scope,
            port: address.port(),
            listener,
        }
    }

    /// Where to send to.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        match self.ip() {
            IpAddr::V4(ip) => SocketAddr::from((ip, self.port)),
            IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, self.port, 0, self.scope)),
        }
    }

    /// The address without the port; IPv4-mapped ones as IPv4.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.ip).to_canonical()
    }

    /// Number of the listener.
    #[must_use]
    pub const fn listener(self) -> u16 {
        self.listener
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.address(), self.listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_survives_the_key() {
        for text in ["192.0.2.1:5683", "[2001:db8::1]:5684", "[fe80::1%3]:61616"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(PeerKey::new(2, address).address(), address);
        }
    }

    #[test]
    fn key_is_compact() {
        assert_eq!(size_of::<PeerKey>(), 24);
    }

    #[test]
    fn listeners_keep_peers_apart() {
        let address = "192.0.2.1:5683".parse().unwrap();
        assert_ne!(PeerKey::new(0, address), PeerKey::new(1, address));
    }
}
