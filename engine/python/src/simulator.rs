//! The simulator for Python: fleets of light devices, and load that measures.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

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

/// Light devices that live while `run` runs.
#[pyclass(module = "lwm2m_server._engine")]
pub struct Fleet(simulator::Fleet);

#[pymethods]
impl Fleet {
    #[new]
    #[pyo3(signature = (
        server, count, *, prefix = "sim-", lifetime = 300, version = "1.0.0", failing = 0.0, vanishing = 0.0,
        spread = 1.0, seed = 0
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
        };
        simulator::Fleet::new(&options).map(Self).map_err(refused)
    }

    /// Lets the devices live for this many seconds; what they have done since the start.
    fn run<'py>(&mut self, py: Python<'py>, seconds: f64) -> PyResult<Bound<'py, PyDict>> {
        let time = self::seconds("seconds", seconds)?;
        let counts = py.detach(|| self.0.run(time)).map_err(refused)?;
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
        ] {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }
}

/// Closed-loop load from a number of sockets.
#[pyclass(module = "lwm2m_server._engine")]
pub struct Load(simulator::Load);

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
    fn new(server: &str, sockets: usize) -> PyResult<Self> {
        simulator::Load::new(resolve(server)?, sockets)
            .map(Self)
            .map_err(refused)
    }

    /// Registers devices, spread over the sockets.
    #[pyo3(signature = (count, *, prefix = "load-", lifetime = 86400))]
    fn register<'py>(
        &mut self,
        py: Python<'py>,
        count: usize,
        prefix: &str,
        lifetime: u32,
    ) -> PyResult<Bound<'py, PyDict>> {
        let measured = py
            .detach(|| self.0.register(count, prefix, lifetime))
            .map_err(refused)?;
        report(py, &measured)
    }

    /// Sends bare Updates, `rounds` for each registered device.
    #[pyo3(signature = (rounds = 1))]
    fn update<'py>(&mut self, py: Python<'py>, rounds: usize) -> PyResult<Bound<'py, PyDict>> {
        let measured = py.detach(|| self.0.update(rounds)).map_err(refused)?;
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
        let measured = py.detach(|| self.0.get(&path, blocks, count)).map_err(refused)?;
        report(py, &measured)
    }
}
