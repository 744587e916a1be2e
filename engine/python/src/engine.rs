//! `Engine`: arguments in, events out; the work is the endpoint's.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use coap::{Code, Delivery, Response};
use endpoint::{Security, Settings, Target, default_suites};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyDict, PyList};
use zeroize::Zeroizing;

use crate::convert::{block, error, event};
use crate::digest;
use crate::errors::EngineError;
use crate::peer::{Peer, parse_address, parse_identity};
use crate::values::BlockTuple;

/// One `CoAP` endpoint, client and server at once.
///
/// Calls that only queue an action keep Python's lock: to give it up and take it back costs more than they do, and
/// where they must wait, they wait for the engine's thread, which never needs it.
#[pyclass(frozen, module = "lwm2m_server._engine")]
pub struct Engine {
    engine: endpoint::Engine,
}

fn etag(value: Option<Vec<u8>>) -> PyResult<Option<Vec<u8>>> {
    match value {
        Some(value) if !(1..=8).contains(&value.len()) => Err(EngineError::new_err(format!(
            "etag: {} bytes, but it has 1 to 8 (RFC 7252 5.10.6)",
            value.len()
        ))),
        value => Ok(value),
    }
}

fn positive_seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| EngineError::new_err(format!("{name}: must be above 0 seconds, not {value}")))
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, ack_timeout = 2.0, ack_random_factor = 1.5, max_retransmit = 4, nstart = 1,
        processing_delay = 0.5, transfer_timeout = 300.0, max_body = 1_048_576, max_assemblies = 1024,
        max_peers = 1_048_576, max_queued = 64, max_events = 8192, max_actions = 65536, busy_max_age = 5,
        progress_bytes = 65536, block_size = 1024, max_half_open = 32768, max_half_open_per_prefix = 16,
        key_operations_per_second = 2000, key_operations_per_second_per_prefix = 200, seed = None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        ack_timeout: f64,
        ack_random_factor: f64,
        max_retransmit: i64,
        nstart: i64,
        processing_delay: f64,
        transfer_timeout: f64,
        max_body: i64,
        max_assemblies: i64,
        max_peers: i64,
        max_queued: i64,
        max_events: i64,
        max_actions: i64,
        busy_max_age: i64,
        progress_bytes: i64,
        block_size: i64,
        max_half_open: i64,
        max_half_open_per_prefix: i64,
        key_operations_per_second: i64,
        key_operations_per_second_per_prefix: i64,
        seed: Option<u64>,
    ) -> PyResult<Self> {
        let settings = Settings {
            ack_timeout,
            ack_random_factor,
            max_retransmit,
            nstart,
            processing_delay,
            transfer_timeout,
            max_body,
            max_assemblies,
            max_peers,
            max_queued,
            max_events,
            max_actions,
            busy_max_age,
            progress_bytes,
            block_size,
            max_half_open,
            max_half_open_per_prefix,
            key_operations_per_second,
            key_operations_per_second_per_prefix,
        };
        let engine =
            endpoint::Engine::new(&settings, seed.unwrap_or_else(endpoint::entropy)).map_err(error)?;
        Ok(Self { engine })
    }

    #[pyo3(signature = (host, port, *, secure = false))]
    fn listen(&self, py: Python<'_>, host: &str, port: u16, secure: bool) -> PyResult<String> {
        let bound = py
            .detach(|| self.engine.listen(host, port, secure))
            .map_err(error)?;
        Ok(bound.to_string())
    }

    #[pyo3(signature = (host, port, *, secure = false))]
    fn bind(&self, py: Python<'_>, host: &str, port: u16, secure: bool) -> PyResult<String> {
        let bound = py
            .detach(|| self.engine.bind(host, port, secure))
            .map_err(error)?;
        Ok(bound.to_string())
    }

    fn serve(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.engine.serve()).map_err(error)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.engine.close());
    }

    fn fileno(&self) -> i32 {
        self.engine.events_fd().as_raw_fd()
    }

    #[pyo3(signature = (limit = 4096))]
    fn drain(&self, py: Python<'_>, limit: usize) -> PyResult<Py<PyList>> {
        let events = py.detach(|| self.engine.drain(limit)).map_err(error)?;
        let objects = events
            .into_iter()
            .map(|item| event(py, item))
            .collect::<PyResult<Vec<_>>>()?;
        Ok(PyList::new(py, objects)?.unbind())
    }

    fn flush(&self) {
        self.engine.flush();
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let statistics = PyDict::new(py);
        for (name, value) in py.detach(|| self.engine.statistics()) {
            statistics.set_item(name, value)?;
        }
        Ok(statistics)
    }

    #[pyo3(
        signature = (peer, code, path, *, query = Vec::new(), payload = b"".as_slice(), content_format = None,
            accept = None, observe = None, etag = None, block2 = None, confirmable = true, timeout = None),
        text_signature = "($self, peer, code, path, *, query=(), payload=b'', content_format=None, accept=None, \
            observe=None, etag=None, block2=None, confirmable=True, timeout=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn request(
        &self,
        peer: &Bound<'_, Peer>,
        code: u8,
        path: Vec<String>,
        query: Vec<String>,
        payload: &[u8],
        content_format: Option<u16>,
        accept: Option<u16>,
        observe: Option<u32>,
        etag: Option<Vec<u8>>,
        block2: Option<(u32, u32)>,
        confirmable: bool,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        let request = coap::Request {
            code: Code(code),
            path,
            query,
            content_format,
            accept,
            observe,
            etags: self::etag(etag)?.into_iter().collect(),
            block2: block2
                .map(|(num, size)| block("block2", (num, false, size)))
                .transpose()?,
            payload: payload.to_vec(),
            ..coap::Request::default()
        };
        let timeout = timeout
            .map(|value| positive_seconds("timeout", value))
            .transpose()?;
        self.engine
            .request(peer.get().target(), request, Delivery { confirmable, timeout })
            .map_err(error)
    }

    fn cancel(&self, handle: u64) -> PyResult<()> {
        self.engine.cancel(handle).map_err(error)
    }

    #[pyo3(signature = (peer, path, digest, *, offset = 0, block_size = 1024, code = 3, content_format = 42))]
    #[allow(clippy::too_many_arguments)]
    fn push(
        &self,
        peer: &Bound<'_, Peer>,
        path: Vec<String>,
        digest: &[u8],
        offset: u64,
        block_size: u32,
        code: u8,
        content_format: u16,
    ) -> PyResult<u64> {
        let digest = self::digest(digest)?;
        block("block_size", (0, false, block_size))?;
        let size = u16::try_from(block_size)?;
        let target = peer.get().target();
        self.engine
            .push(
                target,
                Code(code),
                path,
                &digest,
                (offset, size),
                Some(content_format),
            )
            .map_err(error)
    }

    #[pyo3(
        signature = (exchange, code, *, payload = b"".as_slice(), content_format = None,
            location_path = Vec::new(), etag = None, max_age = None, block1 = None, observe = false),
        text_signature = "($self, exchange, code, *, payload=b'', content_format=None, location_path=(), \
            etag=None, max_age=None, block1=None, observe=False)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn respond(
        &self,
        exchange: u64,
        code: u8,
        payload: &[u8],
        content_format: Option<u16>,
        location_path: Vec<String>,
        etag: Option<Vec<u8>>,
        max_age: Option<u32>,
        block1: Option<BlockTuple>,
        observe: bool,
    ) -> PyResult<()> {
        let response = Response {
            code: Code(code),
            content_format,
            etag: self::etag(etag)?,
            max_age,
            location_path,
            block1: block1.map(|value| block("block1", value)).transpose()?,
            observe: observe.then_some(0),
            payload: payload.to_vec(),
            ..Response::default()
        };
        self.engine.respond(exchange, response).map_err(error)
    }

    #[pyo3(
        signature = (exchange, code, *, payload = b"".as_slice(), content_format = None, confirmable = false),
        text_signature = "($self, exchange, code, *, payload=b'', content_format=None, confirmable=False)"
    )]
    fn notify(
        &self,
        exchange: u64,
        code: u8,
        payload: &[u8],
        content_format: Option<u16>,
        confirmable: bool,
    ) -> PyResult<()> {
        let response = Response {
            code: Code(code),
            content_format,
            payload: payload.to_vec(),
            ..Response::default()
        };
        self.engine.notify(exchange, response, confirmable).map_err(error)
    }

    fn stream(&self, path: Vec<String>) -> PyResult<()> {
        self.engine.stream(path).map_err(error)
    }

    fn add_blob(&self, py: Python<'_>, digest: &[u8], file: PathBuf) -> PyResult<u64> {
        let digest = self::digest(digest)?;
        py.detach(|| self.engine.add_blob(digest, &file)).map_err(error)
    }

    fn remove_blob(&self, digest: &[u8]) -> PyResult<()> {
        let digest = self::digest(digest)?;
        self.engine.remove_blob(digest).map_err(error)
    }

    fn offer(&self, path: Vec<String>, digest: &[u8], to: &Bound<'_, Peer>) -> PyResult<()> {
        let (digest, to) = (self::digest(digest)?, to.get().target());
        self.engine.offer(path, &digest, &to).map_err(error)
    }

    fn withdraw(&self, path: Vec<String>, to: &Bound<'_, Peer>) -> PyResult<()> {
        let to = to.get().target();
        self.engine.withdraw(path, &to).map_err(error)
    }

    fn keep(&self, location: String, peer: &Bound<'_, Peer>) -> PyResult<()> {
        let target = peer.get().target();
        self.engine.keep(location, target).map_err(error)
    }

    /// `keep`, and 2.01 to the Register, for a batch: exchange, location, peer.
    fn welcome(&self, registrations: Vec<(u64, String, Py<Peer>)>) -> PyResult<()> {
        for (exchange, location, peer) in registrations {
            let response = Response {
                code: Code::CREATED,
                location_path: vec!["rd".to_owned(), location.clone()],
                ..Response::default()
            };
            self.engine.keep(location, peer.get().target()).map_err(error)?;
            self.engine.respond(exchange, response).map_err(error)?;
        }
        Ok(())
    }

    /// `keep` for many: location, `host:port`, identity.
    fn keep_all(&self, py: Python<'_>, registrations: Vec<(String, String, Option<String>)>) -> PyResult<()> {
        py.detach(|| {
            let targets = registrations.into_iter().map(|(location, address, identity)| {
                let address = parse_address(&address)?;
                let target = match identity {
                    Some(name) => {
                        parse_identity(&name)?;
                        Target::Identity {
                            name: name.into(),
                            address,
                        }
                    }
                    None => Target::Plain {
                        address,
                        listener: None,
                    },
                };
                Ok((location, target))
            });
            let targets = targets.collect::<PyResult<Vec<_>>>()?;
            self.engine.keep_all(targets).map_err(error)
        })
    }

    fn drop(&self, location: String) -> PyResult<()> {
        self.engine.forget(location).map_err(error)
    }

    fn forget(&self, peer: &Bound<'_, Peer>) -> PyResult<()> {
        let target = peer.get().target();
        self.engine.forget_peer(target).map_err(error)
    }

    #[pyo3(
        signature = (*, certificate = None, private_key = None, offer_raw_public_key = true,
            accept_raw_public_keys = true, accept_pinned_certificates = true, trust = Vec::new(), psk = None,
            server_public_key = None, server_name = None, certificate_usage = 3, server_certificate = None,
            suites = default_suites(), connection_id_length = Some(8), node = None, handshake_timeout = 9.0,
            sealing_key = None, key_log = false),
        text_signature = "($self, *, certificate=None, private_key=None, offer_raw_public_key=True, \
            accept_raw_public_keys=True, accept_pinned_certificates=True, trust=(), psk=None, \
            server_public_key=None, server_name=None, certificate_usage=3, server_certificate=None, \
            suites=('TLS_PSK_WITH_AES_128_CCM_8', 'TLS_PSK_WITH_AES_128_GCM_SHA256', \
            'TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8', 'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256'), \
            connection_id_length=8, node=None, handshake_timeout=9.0, sealing_key=None, key_log=False)"
    )]
    #[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools)]
    fn secure(
        &self,
        py: Python<'_>,
        certificate: Option<Vec<u8>>,
        private_key: Option<Vec<u8>>,
        offer_raw_public_key: bool,
        accept_raw_public_keys: bool,
        accept_pinned_certificates: bool,
        trust: Vec<Vec<u8>>,
        psk: Option<(Vec<u8>, Vec<u8>)>,
        server_public_key: Option<Vec<u8>>,
        server_name: Option<String>,
        certificate_usage: i64,
        server_certificate: Option<Vec<u8>>,
        suites: Vec<String>,
        connection_id_length: Option<i64>,
        node: Option<i64>,
        handshake_timeout: f64,
        sealing_key: Option<Vec<u8>>,
        key_log: bool,
    ) -> PyResult<()> {
        let security = Security {
            certificate,
            private_key: private_key.map(Zeroizing::new),
            offer_raw_public_key,
            accept_raw_public_keys,
            accept_pinned_certificates,
            trust,
            psk: psk.map(|(identity, key)| (identity, Zeroizing::new(key))),
            server_public_key,
            server_name,
            certificate_usage,
            server_certificate,
            suites,
            connection_id_length,
            node,
            handshake_timeout,
            sealing_key: sealing_key.map(Zeroizing::new),
            key_log,
        };
        py.detach(|| self.engine.secure(&security)).map_err(error)
    }

    fn provide_psks(&self, answers: Vec<(u64, Vec<Vec<u8>>)>) -> PyResult<()> {
        for (handshake, keys) in answers {
            let keys = keys.into_iter().map(Zeroizing::new).collect();
            self.engine.provide_psk(handshake, keys).map_err(error)?;
        }
        Ok(())
    }

    fn provide_verdict(&self, handshake: u64, accepted: bool) -> PyResult<()> {
        self.engine.provide_verdict(handshake, accepted).map_err(error)
    }

    fn forget_key(&self, identity: &str) -> PyResult<()> {
        let identity = parse_identity(identity)?;
        self.engine.forget_key(identity).map_err(error)
    }

    fn revoke(&self, identity: &str) -> PyResult<()> {
        let identity = parse_identity(identity)?;
        self.engine.revoke(identity).map_err(error)
    }

    fn restore<'py>(
        &self,
        py: Python<'py>,
        sessions: Vec<(u64, u64, PyBackedBytes)>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let counts = PyDict::new(py);
        for (word, count) in py.detach(|| self.engine.restore(&sessions)).map_err(error)? {
            counts.set_item(word, count)?;
        }
        Ok(counts)
    }

    fn confirm_sessions(&self, marks: Vec<(u64, u64)>) -> PyResult<()> {
        self.engine.confirm_sessions(marks).map_err(error)
    }

    fn __repr__(&self) -> String {
        format!("Engine(fileno={})", self.fileno())
    }
}
