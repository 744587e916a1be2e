//! The simulator for Python: fleets of light devices, and load that measures.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use simulator::Credentials;

use crate::errors::EngineError;

fn resolve(server: &str) -> PyResult<SocketAddr> {
    server
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| {
            EngineError::new_err(format!(
                "server: {server:?} is not an address like \"192.0.2.1:5683\""
            ))
        })
}

fn refused(error: std::io::Error) -> PyErr {
    EngineError::new_err(error.to_string())
}

fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| EngineError::new_err(format!("{name}: {value} is not a number of seconds")))
}

fn share(name: &str, value: f64) -> PyResult<f64> {
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(EngineError::new_err(format!(
            "{name}: {value} is not a share from 0 to 1"
        )))
    }
}

/// A class of Python must be `Sync`, which associations with their generators of random numbers are not.
fn own<T>(value: &mut Mutex<T>) -> &mut T {
    value.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// `DeviceSecurity` of `lwm2m_server.transport.simulator`, which says what the fields are.
#[derive(FromPyObject)]
struct DeviceSecurity {
    psk_secret: Option<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    certificates: Vec<Vec<Vec<u8>>>,
    server_public_key: Option<Vec<u8>>,
    trust: Vec<Vec<u8>>,
    server_name: Option<String>,
    connection_ids: bool,
    handshake_timeout: f64,
}

impl DeviceSecurity {
    fn credentials(self) -> PyResult<Credentials> {
        match (self.psk_secret, self.server_public_key) {
            (Some(secret), _) => Ok(Credentials::psk(secret)),
            (None, Some(server)) => Ok(Credentials::raw_public_keys(self.keys, server)),
            (None, None) if self.certificates.len() == self.keys.len() => {
                let devices = self.certificates.into_iter().zip(self.keys).collect();
                Credentials::certificates(devices, &self.trust, self.server_name).ok_or_else(|| {
                    EngineError::new_err("trust: this is no certificate of an authority in DER")
                })
            }
            (None, None) => Err(EngineError::new_err(
                "keys: there must be one for each chain of certificates",
            )),
        }
    }

    fn build(self) -> PyResult<Arc<simulator::Security>> {
        Ok(Arc::new(simulator::Security {
            connection_ids: self.connection_ids,
            handshake_timeout: seconds("handshake_timeout", self.handshake_timeout)?,
            credentials: self.credentials()?,
        }))
    }
}

/// Light devices that live while `run` runs.
#[pyclass(module = "lwm2m_server._engine")]
pub struct Fleet(Mutex<simulator::Fleet>);

#[pymethods]
impl Fleet {
    #[new]
    #[pyo3(signature = (
        server, count, *, prefix = "sim-", lifetime = 300, version = "1.0.0", failing = 0.0, vanishing = 0.0,
        spread = 1.0, seed = 0, security = None
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        server: &str,
        count: usize,
        prefix: &str,
        lifetime: u32,
        version: &str,
        failing: f64,
        vanishing: f64,
        spread: f64,
        seed: u64,
        security: Option<DeviceSecurity>,
    ) -> PyResult<Self> {
        let options = simulator::FleetOptions {
            server: resolve(server)?,
            count,
            prefix: prefix.to_owned(),
            lifetime: lifetime.max(1),
            version: version.to_owned(),
            failing: share("failing", failing)?,
            vanishing: share("vanishing", vanishing)?,
            spread: seconds("spread", spread)?,
            seed,
            security: security.map(DeviceSecurity::build).transpose()?,
        };
        simulator::Fleet::new(&options)
            .map(Mutex::new)
            .map(Self)
            .map_err(refused)
    }

    /// Lets the devices live for this many seconds; what they have done since the start.
    fn run<'py>(&mut self, py: Python<'py>, seconds: f64) -> PyResult<Bound<'py, PyDict>> {
        let time = self::seconds("seconds", seconds)?;
        let counts = py.detach(|| own(&mut self.0).run(time)).map_err(refused)?;
        let dict = PyDict::new(py);
        for (name, value) in [
            ("devices", counts.devices),
            ("registered", counts.registered),
            ("registrations", counts.registrations),
            ("updates", counts.updates),
            ("failures", counts.failures),
            ("requests", counts.requests),
            ("bytes", counts.bytes),
            ("downloads", counts.downloads),
            ("installed", counts.installed),
            ("handshakes", counts.handshakes),
            ("refused", counts.refused),
        ] {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }
}

/// Closed-loop load from a number of sources.
#[pyclass(module = "lwm2m_server._engine")]
pub struct Load(Mutex<simulator::Load>);

fn report<'py>(py: Python<'py>, report: &simulator::Report) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in [
        ("answered", report.answered),
        ("errors", report.errors),
        ("repeated", report.repeated),
        ("bytes", report.bytes),
    ] {
        dict.set_item(name, value)?;
    }
    for (name, value) in [
        ("seconds", report.seconds),
        ("p50", report.p50),
        ("p99", report.p99),
        ("max", report.max),
    ] {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}

#[pymethods]
impl Load {
    #[new]
    #[pyo3(signature = (server, sources, *, security = None))]
    fn new(server: &str, sources: usize, security: Option<DeviceSecurity>) -> PyResult<Self> {
        let security = security.map(DeviceSecurity::build).transpose()?;
        simulator::Load::new(resolve(server)?, sources, security)
            .map(Mutex::new)
            .map(Self)
            .map_err(refused)
    }

    /// Why a handshake failed last.
    #[getter]
    fn failure(&mut self) -> Option<&'static str> {
        own(&mut self.0).failure()
    }

    /// Shakes hands for new devices, spread over the sources.
    #[pyo3(signature = (count, *, prefix = "load-"))]
    fn handshake<'py>(
        &mut self,
        py: Python<'py>,
        count: usize,
        prefix: &str,
    ) -> PyResult<Bound<'py, PyDict>> {
        let measured = py
            .detach(|| own(&mut self.0).handshake(count, prefix))
            .map_err(refused)?;
        report(py, &measured)
    }

    /// Registers devices, spread over the sources.
    #[pyo3(signature = (count, *, prefix = "load-", lifetime = 86400))]
    fn register<'py>(
        &mut self,
        py: Python<'py>,
        count: usize,
        prefix: &str,
        lifetime: u32,
    ) -> PyResult<Bound<'py, PyDict>> {
        let measured = py
            .detach(|| own(&mut self.0).register(count, prefix, lifetime))
            .map_err(refused)?;
        report(py, &measured)
    }

    /// Sends bare Updates, `rounds` for each registered device.
    #[pyo3(signature = (rounds = 1))]
    fn update<'py>(&mut self, py: Python<'py>, rounds: usize) -> PyResult<Bound<'py, PyDict>> {
        let measured = py.detach(|| own(&mut self.0).update(rounds)).map_err(refused)?;
        report(py, &measured)
    }

    /// Gets a path `count` times; with `blocks` above 0 block after block of 1024 bytes.
    #[pyo3(signature = (path, count, *, blocks = 0))]
    fn get<'py>(
        &mut self,
        py: Python<'py>,
        path: Vec<String>,
        count: usize,
        blocks: u32,
    ) -> PyResult<Bound<'py, PyDict>> {
        let measured = py
            .detach(|| own(&mut self.0).get(&path, blocks, count))
            .map_err(refused)?;
        report(py, &measured)
    }
}
