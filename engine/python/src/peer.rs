//! `Peer`: the other side of an exchange.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use endpoint::{Remote, Route, Target, identity};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::errors::EngineError;

/// What the transport below CoAP is; the URI scheme names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain UDP.
    Coap,
    /// DTLS.
    Coaps,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Coap => "coap",
            Self::Coaps => "coaps",
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
    /// Of its certificate; no part of who it is.
    names: Arc<[Box<str>]>,
    /// The listener that it came in by and is to be answered by; no part of who it is.
    listener: Option<u16>,
}

impl Peer {
    /// What two values of the same peer agree in. An identity stays when the address moves.
    fn essence(&self) -> (Scheme, Result<&str, SocketAddr>) {
        (self.scheme, self.identity.as_deref().ok_or(self.address))
    }

    /// The peer of an event.
    pub fn of(remote: &Remote) -> Self {
        let scheme = match remote.key.route() {
            Route::Plain(_) => Scheme::Coap,
            Route::Association(_) | Route::Server(_) => Scheme::Coaps,
        };
        let claim = remote.claim.as_ref();
        Self {
            address: remote.address,
            scheme: if claim.is_some() { Scheme::Coaps } else { scheme },
            identity: claim.map(endpoint::Claim::text),
            names: claim.map_or_else(Arc::default, |claim| claim.names().into()),
            listener: (scheme == Scheme::Coap).then(|| remote.key.listener()),
        }
    }

    /// Where to send to.
    pub fn target(&self) -> Target {
        match (&self.identity, self.scheme) {
            (Some(name), _) => Target::Identity {
                name: Arc::clone(name),
                address: self.address,
            },
            (None, Scheme::Coaps) => Target::Server(self.address),
            (None, Scheme::Coap) => Target::Plain {
                address: self.address,
                listener: self.listener,
            },
        }
    }
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.essence() == other.essence()
    }
}

impl Eq for Peer {}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.essence().hash(state);
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

/// An address out of its text; an IPv4-mapped one is the IPv4 address.
pub fn parse_address(address: &str) -> PyResult<SocketAddr> {
    let parsed = address.parse::<SocketAddr>().map_err(|_| {
        EngineError::new_err(format!(
            "address: {address:?} is not an IP address with a port, such as 192.0.2.1:5683 or [2001:db8::1]:5683"
        ))
    })?;
    Ok(canonical(parsed))
}

/// The text of an identity, checked.
pub fn parse_identity(text: &str) -> PyResult<dtls::Identity> {
    identity::parse(text).ok_or_else(|| {
        EngineError::new_err(format!(
            "identity: {text:?} is none of psk:<identity, percent-encoded>, rpk:<SHA-256> and x509:<SHA-256>"
        ))
    })
}

#[pymethods]
impl Peer {
    #[new]
    #[pyo3(signature = (address, *, scheme = None, identity = None, names = Vec::new()),
        text_signature = "(address, *, scheme=None, identity=None, names=())")]
    fn new(
        address: &str,
        scheme: Option<&str>,
        identity: Option<&str>,
        names: Vec<String>,
    ) -> PyResult<Self> {
        let scheme = match (scheme, identity) {
            (None | Some("coaps"), Some(_)) | (Some("coaps"), None) => Scheme::Coaps,
            (None | Some("coap"), None) => Scheme::Coap,
            (Some("coap"), Some(_)) => {
                return Err(EngineError::new_err(
                    "scheme: a peer with an identity is reached by \"coaps\"",
                ));
            }
            (Some(other), _) => {
                return Err(EngineError::new_err(format!(
                    "scheme: {other:?} is not supported; use \"coap\" or \"coaps\""
                )));
            }
        };
        identity.map(parse_identity).transpose()?;
        Ok(Self {
            address: parse_address(address)?,
            scheme,
            identity: identity.map(Arc::from),
            names: names.into_iter().map(Box::from).collect(),
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

    #[getter]
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.names.iter().map(|name| &**name))
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
