//! `Peer`: the other side of an exchange.

use std::net::SocketAddr;
use std::sync::Arc;

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub address: SocketAddr,
    pub scheme: Scheme,
    pub identity: Option<Arc<str>>,
}

impl Peer {
    /// A peer on plain UDP.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, scheme: Scheme::Coap, identity: None }
    }
}

#[pymethods]
impl Peer {
    #[new]
    #[pyo3(signature = (address, *, scheme = "coap"))]
    fn new(address: &str, scheme: &str) -> PyResult<Self> {
        if scheme != "coap" {
            return Err(EngineError::new_err(format!("scheme: {scheme:?} is not supported; use \"coap\"")));
        }
        let parsed = address.parse::<SocketAddr>().map_err(|_| {
            EngineError::new_err(format!(
                "address: {address:?} is not an IP address with a port, such as 192.0.2.1:5683 or [2001:db8::1]:5683"
            ))
        })?;
        Ok(Self::plain(parsed))
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
            Some(identity) => format!("Peer({}://{}, identity={identity:?})", self.scheme.as_str(), self.address),
            None => format!("Peer({}://{})", self.scheme.as_str(), self.address),
        }
    }
}
