//! `Peer`: the other side of an exchange.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use endpoint::{PeerKey, Target};
use pyo3::prelude::*;

use crate::errors::EngineError;

/// What the transport below CoAP is; the URI scheme names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain UDP.
    Coap,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Coap => "coap",
        }
    }
}

/// The other side: address, and the identity that its security session proved (None on plain `CoAP`).
#[pyclass(frozen, eq, hash, module = "lwm2m_server._engine")]
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    scheme: Scheme,
    identity: Option<Arc<str>>,
    /// The listener that it came in by and is to be answered by; no part of who it is.
    listener: Option<u16>,
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        (self.address, self.scheme, &self.identity) == (other.address, other.scheme, &other.identity)
    }
}

impl Eq for Peer {}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.address, self.scheme, &self.identity).hash(state);
    }
}

impl Peer {
    /// The peer of an event.
    pub fn from_key(key: PeerKey) -> Self {
        Self {
            address: key.address(),
            scheme: Scheme::Coap,
            identity: None,
            listener: Some(key.listener()),
        }
    }

    /// Where to send to.
    pub fn target(&self) -> Target {
        Target {
            address: self.address,
            listener: self.listener,
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

#[pymethods]
impl Peer {
    #[new]
    #[pyo3(signature = (address, *, scheme = "coap"))]
    fn new(address: &str, scheme: &str) -> PyResult<Self> {
        if scheme != "coap" {
            return Err(EngineError::new_err(format!(
                "scheme: {scheme:?} is not supported; use \"coap\""
            )));
        }
        let parsed = address.parse::<SocketAddr>().map_err(|_| {
            EngineError::new_err(format!(
                "address: {address:?} is not an IP address with a port, such as 192.0.2.1:5683 or [2001:db8::1]:5683"
            ))
        })?;
        Ok(Self {
            // An IPv4-mapped address is the IPv4 peer.
            address: canonical(parsed),
            scheme: Scheme::Coap,
            identity: None,
            listener: None,
        })
    }

    #[getter]
    fn address(&self) -> String {
        self.address.to_string()
    }

    #[getter]
    fn host(&self) -> String {
        self.address.ip().to_string()
    }

    #[getter]
    fn port(&self) -> u16 {
        self.address.port()
    }

    #[getter]
    fn scheme(&self) -> &'static str {
        self.scheme.as_str()
    }

    #[getter]
    fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    fn __repr__(&self) -> String {
        match &self.identity {
            Some(identity) => format!(
                "Peer({}://{}, identity={identity:?})",
                self.scheme.as_str(),
                self.address
            ),
            None => format!("Peer({}://{})", self.scheme.as_str(), self.address),
        }
    }
}
