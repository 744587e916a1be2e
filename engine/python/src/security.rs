//! News of handshakes and associations as Python sees them: frozen classes, built in `drain` and by tests.

use std::net::SocketAddr;

use endpoint::{SecurityEvent, SessionExport, identity};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::peer::{parse_address, parse_identity};

fn names_of(identity: &dtls::Identity) -> Vec<String> {
    identity::names(identity)
        .iter()
        .map(|name| (**name).to_owned())
        .collect()
}

fn checked(address: &str, identity: Option<&str>) -> PyResult<()> {
    parse_address(address)?;
    identity.map(parse_identity).transpose()?;
    Ok(())
}

/// A handshake that waits: for `Engine.provide_psks` when the identity begins with `psk:`, else for
/// `Engine.provide_verdict`.
#[pyclass(frozen, eq, module = "lwm2m_server._engine")]
#[derive(PartialEq)]
pub struct LookUp {
    #[pyo3(get)]
    handshake: u64,
    address: SocketAddr,
    #[pyo3(get)]
    identity: String,
    names: Vec<String>,
    der: Vec<u8>,
    #[pyo3(get)]
    verified: bool,
}

#[pymethods]
impl LookUp {
    #[new]
    #[pyo3(signature = (*, handshake, address, identity, names = Vec::new(), der = Vec::new(), verified = true),
        text_signature = "(*, handshake, address, identity, names=(), der=b'', verified=True)")]
    fn new(
        handshake: u64,
        address: &str,
        identity: String,
        names: Vec<String>,
        der: Vec<u8>,
        verified: bool,
    ) -> PyResult<Self> {
        parse_identity(&identity)?;
        Ok(Self {
            handshake,
            address: parse_address(address)?,
            identity,
            names,
            der,
            verified,
        })
    }

    #[getter]
    fn address(&self) -> String {
        self.address.to_string()
    }

    #[getter]
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.names)
    }

    #[getter]
    fn der<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.der)
    }

    fn __repr__(&self) -> String {
        format!(
            "LookUp(handshake={}, address={}, identity={:?})",
            self.handshake, self.address, self.identity
        )
    }
}

/// A device has an association.
#[pyclass(frozen, eq, module = "lwm2m_server._engine")]
#[derive(PartialEq)]
pub struct Established {
    #[pyo3(get)]
    identity: String,
    names: Vec<String>,
    address: SocketAddr,
}

#[pymethods]
impl Established {
    #[new]
    #[pyo3(signature = (*, identity, names = Vec::new(), address),
        text_signature = "(*, identity, names=(), address)")]
    fn new(identity: String, names: Vec<String>, address: &str) -> PyResult<Self> {
        parse_identity(&identity)?;
        Ok(Self {
            identity,
            names,
            address: parse_address(address)?,
        })
    }

    #[getter]
    fn address(&self) -> String {
        self.address.to_string()
    }

    #[getter]
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.names)
    }

    fn __repr__(&self) -> String {
        format!(
            "Established(identity={:?}, address={})",
            self.identity, self.address
        )
    }
}

/// An association is over.
#[pyclass(frozen, eq, module = "lwm2m_server._engine")]
#[derive(PartialEq)]
pub struct Ended {
    #[pyo3(get)]
    identity: String,
    #[pyo3(get)]
    reason: String,
}

#[pymethods]
impl Ended {
    #[new]
    #[pyo3(signature = (*, identity, reason))]
    fn new(identity: String, reason: String) -> PyResult<Self> {
        parse_identity(&identity)?;
        Ok(Self { identity, reason })
    }

    fn __repr__(&self) -> String {
        format!("Ended(identity={:?}, reason={:?})", self.identity, self.reason)
    }
}

/// A handshake came to nothing; the identity is what was claimed, without proof.
#[pyclass(frozen, eq, module = "lwm2m_server._engine")]
#[derive(PartialEq)]
pub struct HandshakeFailed {
    #[pyo3(get)]
    address: String,
    #[pyo3(get)]
    reason: String,
    #[pyo3(get)]
    identity: Option<String>,
}

#[pymethods]
impl HandshakeFailed {
    #[new]
    #[pyo3(signature = (*, address, reason, identity = None))]
    fn new(address: String, reason: String, identity: Option<String>) -> PyResult<Self> {
        checked(&address, identity.as_deref())?;
        Ok(Self {
            address,
            reason,
            identity,
        })
    }

    fn __repr__(&self) -> String {
        format!(
            "HandshakeFailed(address={:?}, reason={:?}, identity={:?})",
            self.address, self.reason, self.identity
        )
    }
}

/// Many forged records came for an association of this identity, the latest from this address.
#[pyclass(frozen, eq, module = "lwm2m_server._engine")]
#[derive(PartialEq)]
pub struct Suspicious {
    #[pyo3(get)]
    identity: String,
    #[pyo3(get)]
    address: String,
}

#[pymethods]
impl Suspicious {
    #[new]
    #[pyo3(signature = (*, identity, address))]
    fn new(identity: String, address: String) -> PyResult<Self> {
        checked(&address, Some(&identity))?;
        Ok(Self { identity, address })
    }

    fn __repr__(&self) -> String {
        format!(
            "Suspicious(identity={:?}, address={:?})",
            self.identity, self.address
        )
    }
}

/// A session to be stored: record, generation, mark, and what is sealed.
type Export = (u64, u64, u64, Vec<u8>);

/// Associations that are to be stored; `Engine.confirm_sessions` when they are durable.
#[pyclass(frozen, eq, module = "lwm2m_server._engine")]
#[derive(PartialEq)]
pub struct SessionExports(Vec<SessionExport>);

#[pymethods]
impl SessionExports {
    #[new]
    #[pyo3(signature = (*, rows))]
    fn new(rows: Vec<Export>) -> Self {
        let export = |(record, generation, mark, sealed)| SessionExport {
            record,
            generation,
            mark,
            sealed,
        };
        Self(rows.into_iter().map(export).collect())
    }

    #[getter]
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let row = |each: &SessionExport| {
            let sealed = PyBytes::new(py, &each.sealed);
            (each.record, each.generation, each.mark, sealed)
        };
        PyList::new(py, self.0.iter().map(row))
    }

    fn __repr__(&self) -> String {
        format!("SessionExports({} sessions)", self.0.len())
    }
}

/// What is stored of an association has no use any more.
#[pyclass(frozen, eq, module = "lwm2m_server._engine")]
#[derive(PartialEq)]
pub struct SessionGone {
    #[pyo3(get)]
    record: u64,
}

#[pymethods]
impl SessionGone {
    #[new]
    #[pyo3(signature = (*, record))]
    fn new(record: u64) -> Self {
        Self { record }
    }

    fn __repr__(&self) -> String {
        format!("SessionGone(record={})", self.record)
    }
}

/// A line for a file in the format of `SSLKEYLOGFILE`: who has it reads the traffic.
#[pyclass(frozen, eq, module = "lwm2m_server._engine")]
#[derive(PartialEq)]
pub struct KeyLog {
    #[pyo3(get)]
    line: String,
}

#[pymethods]
impl KeyLog {
    #[new]
    #[pyo3(signature = (*, line))]
    fn new(line: String) -> Self {
        Self { line }
    }
}

/// One event as an object of its class.
pub fn object(py: Python<'_>, event: SecurityEvent) -> PyResult<Py<PyAny>> {
    let object = match event {
        SecurityEvent::LookUp {
            handshake,
            address,
            identity,
            der,
            verified,
        } => {
            let look_up = LookUp {
                handshake,
                address,
                identity: identity::text(&identity),
                names: names_of(&identity),
                der: der.into(),
                verified,
            };
            Py::new(py, look_up)?.into_any()
        }
        SecurityEvent::Established { identity, address } => {
            let established = Established {
                identity: identity::text(&identity),
                names: names_of(&identity),
                address,
            };
            Py::new(py, established)?.into_any()
        }
        SecurityEvent::Ended { identity, reason } => {
            let ended = Ended {
                identity: identity::text(&identity),
                reason: reason.to_owned(),
            };
            Py::new(py, ended)?.into_any()
        }
        SecurityEvent::HandshakeFailed {
            address,
            reason,
            identity,
        } => {
            let failed = HandshakeFailed {
                address: address.to_string(),
                reason: reason.to_owned(),
                identity: identity.map(|identity| identity::text(&identity)),
            };
            Py::new(py, failed)?.into_any()
        }
        SecurityEvent::Suspicious { identity, address } => {
            let suspicious = Suspicious {
                identity: identity::text(&identity),
                address: address.to_string(),
            };
            Py::new(py, suspicious)?.into_any()
        }
        SecurityEvent::SessionExports(exports) => Py::new(py, SessionExports(exports))?.into_any(),
        SecurityEvent::SessionGone { record } => Py::new(py, SessionGone { record })?.into_any(),
        SecurityEvent::KeyLog(line) => Py::new(py, KeyLog { line })?.into_any(),
    };
    Ok(object)
}
