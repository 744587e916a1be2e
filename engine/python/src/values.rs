//! The events as Python sees them: frozen classes, built in `drain` and by tests.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::peer::Peer;

/// A block option as Python sees it: number, more, size in bytes.
pub type BlockTuple = (u32, bool, u32);

fn texts<'py>(py: Python<'py>, values: &[String]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, values)
}

fn preview(py: Python<'_>, payload: &Py<PyBytes>) -> String {
    format!("{} bytes", payload.as_bytes(py).len())
}

fn dotted(code: u8) -> String {
    format!("{}.{:02}", code >> 5, code & 31)
}

/// A request from a peer that Python must answer with `Engine.respond(exchange, ...)`.
#[pyclass(frozen, module = "lwm2m_server._engine")]
pub struct Request {
    #[pyo3(get)]
    pub exchange: u64,
    #[pyo3(get)]
    pub peer: Py<Peer>,
    #[pyo3(get)]
    pub code: u8,
    pub path: Vec<String>,
    pub query: Vec<String>,
    #[pyo3(get)]
    pub content_format: Option<u16>,
    #[pyo3(get)]
    pub accept: Option<u16>,
    #[pyo3(get)]
    pub observe: Option<u32>,
    pub etags: Vec<Vec<u8>>,
    pub payload: Py<PyBytes>,
    #[pyo3(get)]
    pub block1: Option<BlockTuple>,
    #[pyo3(get)]
    pub size1: Option<u32>,
}

#[pymethods]
impl Request {
    #[new]
    #[pyo3(
        signature = (*, exchange, peer, code, path, query = Vec::new(), content_format = None, accept = None,
            observe = None, etags = Vec::new(), payload = None, block1 = None, size1 = None),
        text_signature = "(*, exchange, peer, code, path, query=(), content_format=None, accept=None, \
            observe=None, etags=(), payload=b'', block1=None, size1=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        exchange: u64,
        peer: Py<Peer>,
        code: u8,
        path: Vec<String>,
        query: Vec<String>,
        content_format: Option<u16>,
        accept: Option<u16>,
        observe: Option<u32>,
        etags: Vec<Vec<u8>>,
        payload: Option<Py<PyBytes>>,
        block1: Option<BlockTuple>,
        size1: Option<u32>,
    ) -> Self {
        Self {
            exchange,
            peer,
            code,
            path,
            query,
            content_format,
            accept,
            observe,
            etags,
            payload: payload.unwrap_or_else(|| PyBytes::new(py, b"").unbind()),
            block1,
            size1,
        }
    }

    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        texts(py, &self.path)
    }

    #[getter]
    fn query<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        texts(py, &self.query)
    }

    #[getter]
    fn etags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.etags.iter().map(|etag| PyBytes::new(py, etag)))
    }

    #[getter]
    fn payload(&self, py: Python<'_>) -> Py<PyBytes> {
        self.payload.clone_ref(py)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!(
            "Request(exchange={}, peer={}, code={}, path=/{}, query={}, payload={})",
            self.exchange,
            self.peer.get().address,
            dotted(self.code),
            self.path.join("/"),
            self.query.join("&"),
            preview(py, &self.payload),
        )
    }
}

/// The answer to `Engine.request` or the end of `Engine.push`; also error codes are answers.
#[pyclass(frozen, module = "lwm2m_server._engine")]
pub struct Response {
    #[pyo3(get)]
    pub handle: u64,
    pub peer: Peer,
    #[pyo3(get)]
    pub code: u8,
    #[pyo3(get)]
    pub content_format: Option<u16>,
    pub payload: Py<PyBytes>,
    pub location_path: Vec<String>,
    pub location_query: Vec<String>,
    pub etag: Option<Vec<u8>>,
    #[pyo3(get)]
    pub max_age: Option<u32>,
    #[pyo3(get)]
    pub block2: Option<BlockTuple>,
    #[pyo3(get)]
    pub size2: Option<u32>,
    #[pyo3(get)]
    pub observe: Option<u32>,
}

#[pymethods]
impl Response {
    #[new]
    #[pyo3(
        signature = (*, handle, peer, code, content_format = None, payload = None, location_path = Vec::new(),
            location_query = Vec::new(), etag = None, max_age = None, block2 = None, size2 = None, observe = None),
        text_signature = "(*, handle, peer, code, content_format=None, payload=b'', location_path=(), \
            location_query=(), etag=None, max_age=None, block2=None, size2=None, observe=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        handle: u64,
        peer: &Bound<'_, Peer>,
        code: u8,
        content_format: Option<u16>,
        payload: Option<Py<PyBytes>>,
        location_path: Vec<String>,
        location_query: Vec<String>,
        etag: Option<Vec<u8>>,
        max_age: Option<u32>,
        block2: Option<BlockTuple>,
        size2: Option<u32>,
        observe: Option<u32>,
    ) -> Self {
        Self {
            handle,
            peer: peer.get().clone(),
            code,
            content_format,
            payload: payload.unwrap_or_else(|| PyBytes::new(py, b"").unbind()),
            location_path,
            location_query,
            etag,
            max_age,
            block2,
            size2,
            observe,
        }
    }

    #[getter]
    fn peer(&self) -> Peer {
        self.peer.clone()
    }

    #[getter]
    fn payload(&self, py: Python<'_>) -> Py<PyBytes> {
        self.payload.clone_ref(py)
    }

    #[getter]
    fn location_path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        texts(py, &self.location_path)
    }

    #[getter]
    fn location_query<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        texts(py, &self.location_query)
    }

    #[getter]
    fn etag<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.etag.as_ref().map(|etag| PyBytes::new(py, etag))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!(
            "Response(handle={}, peer={}, code={}, payload={})",
            self.handle,
            self.peer.address,
            dotted(self.code),
            preview(py, &self.payload),
        )
    }
}

/// A request, observation or push ended without an answer.
#[pyclass(frozen, module = "lwm2m_server._engine")]
pub struct Failure {
    #[pyo3(get)]
    pub handle: u64,
    pub peer: Peer,
    #[pyo3(get)]
    pub reason: String,
    #[pyo3(get)]
    pub detail: String,
    #[pyo3(get)]
    pub offset: u64,
}

#[pymethods]
impl Failure {
    #[new]
    #[pyo3(
        signature = (*, handle, peer, reason, detail = String::new(), offset = 0),
        text_signature = "(*, handle, peer, reason, detail='', offset=0)"
    )]
    fn new(handle: u64, peer: &Bound<'_, Peer>, reason: String, detail: String, offset: u64) -> Self {
        Self {
            handle,
            peer: peer.get().clone(),
            reason,
            detail,
            offset,
        }
    }

    #[getter]
    fn peer(&self) -> Peer {
        self.peer.clone()
    }

    fn __repr__(&self) -> String {
        format!(
            "Failure(handle={}, reason={:?}, detail={:?})",
            self.handle, self.reason, self.detail
        )
    }
}

/// A fresh notification of an observation (stale ones are dropped, RFC 7641 3.4); an error code ends it.
#[pyclass(frozen, module = "lwm2m_server._engine")]
pub struct Notification {
    #[pyo3(get)]
    pub handle: u64,
    pub peer: Peer,
    #[pyo3(get)]
    pub code: u8,
    #[pyo3(get)]
    pub content_format: Option<u16>,
    pub payload: Py<PyBytes>,
}

#[pymethods]
impl Notification {
    #[new]
    #[pyo3(
        signature = (*, handle, peer, code, content_format = None, payload = None),
        text_signature = "(*, handle, peer, code, content_format=None, payload=b'')"
    )]
    fn new(
        py: Python<'_>,
        handle: u64,
        peer: &Bound<'_, Peer>,
        code: u8,
        content_format: Option<u16>,
        payload: Option<Py<PyBytes>>,
    ) -> Self {
        let payload = payload.unwrap_or_else(|| PyBytes::new(py, b"").unbind());
        Self {
            handle,
            peer: peer.get().clone(),
            code,
            content_format,
            payload,
        }
    }

    #[getter]
    fn peer(&self) -> Peer {
        self.peer.clone()
    }

    #[getter]
    fn payload(&self, py: Python<'_>) -> Py<PyBytes> {
        self.payload.clone_ref(py)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!(
            "Notification(handle={}, code={}, payload={})",
            self.handle,
            dotted(self.code),
            preview(py, &self.payload)
        )
    }
}

/// Coarse progress of a push: bytes acknowledged of the total, blocks sent again so far.
#[pyclass(frozen, module = "lwm2m_server._engine")]
pub struct Progress {
    #[pyo3(get)]
    pub handle: u64,
    #[pyo3(get)]
    pub offset: u64,
    #[pyo3(get)]
    pub size: u64,
    #[pyo3(get)]
    pub repeated: u64,
}

#[pymethods]
impl Progress {
    #[new]
    #[pyo3(signature = (*, handle, offset, size, repeated = 0))]
    fn new(handle: u64, offset: u64, size: u64, repeated: u64) -> Self {
        Self {
            handle,
            offset,
            size,
            repeated,
        }
    }

    fn __repr__(&self) -> String {
        format!(
            "Progress(handle={}, offset={}, size={})",
            self.handle, self.offset, self.size
        )
    }
}

/// Coarse progress of a served blob: how far this peer has come under this path.
#[pyclass(frozen, module = "lwm2m_server._engine")]
pub struct Download {
    pub peer: Peer,
    pub path: Vec<String>,
    pub digest: [u8; 32],
    #[pyo3(get)]
    pub offset: u64,
    #[pyo3(get)]
    pub size: u64,
    #[pyo3(get)]
    pub repeated: u64,
}

#[pymethods]
impl Download {
    #[new]
    #[pyo3(signature = (*, peer, path, digest, offset, size, repeated = 0))]
    fn new(
        peer: &Bound<'_, Peer>,
        path: Vec<String>,
        digest: &[u8],
        offset: u64,
        size: u64,
        repeated: u64,
    ) -> PyResult<Self> {
        Ok(Self {
            peer: peer.get().clone(),
            path,
            digest: crate::digest(digest)?,
            offset,
            size,
            repeated,
        })
    }

    #[getter]
    fn peer(&self) -> Peer {
        self.peer.clone()
    }

    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        texts(py, &self.path)
    }

    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.digest)
    }

    fn __repr__(&self) -> String {
        format!(
            "Download(peer={}, path=/{}, offset={}, size={}, repeated={})",
            self.peer.address,
            self.path.join("/"),
            self.offset,
            self.size,
            self.repeated
        )
    }
}

/// The peer's interest in an exchange that we observe-answer has ended (Observe 1, RST, or silence).
#[pyclass(frozen, module = "lwm2m_server._engine")]
pub struct Cancelled {
    #[pyo3(get)]
    pub exchange: u64,
}

#[pymethods]
impl Cancelled {
    #[new]
    #[pyo3(signature = (*, exchange))]
    fn new(exchange: u64) -> Self {
        Self { exchange }
    }

    fn __repr__(&self) -> String {
        format!("Cancelled(exchange={})", self.exchange)
    }
}

/// Registrations that were refreshed by an Update which changed nothing: (location id, seconds since epoch).
#[pyclass(frozen, module = "lwm2m_server._engine")]
pub struct Alive {
    #[pyo3(get)]
    pub updates: Vec<(String, f64)>,
}

#[pymethods]
impl Alive {
    #[new]
    #[pyo3(signature = (*, updates))]
    fn new(updates: Vec<(String, f64)>) -> Self {
        Self { updates }
    }

    fn __repr__(&self) -> String {
        format!("Alive({} updates)", self.updates.len())
    }
}
