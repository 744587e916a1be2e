//! The Python module `lwm2m_server._engine`: conversion between the engine's types and Python's, nothing else.

// PyO3 hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

mod convert;
mod engine;
mod errors;
mod peer;
mod security;
mod simulator;
mod values;

use pyo3::prelude::*;

use crate::errors::EngineError;

fn digest(bytes: &[u8]) -> PyResult<[u8; 32]> {
    bytes.try_into().map_err(|_| {
        EngineError::new_err(format!(
            "digest: {} bytes, but a SHA-256 digest has 32",
            bytes.len()
        ))
    })
}

/// The engine of lwm2m-server.
#[pymodule]
mod _engine {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::errors::{EngineError, QueueFull};
    #[pymodule_export]
    use crate::peer::Peer;
    #[pymodule_export]
    use crate::security::{
        Ended, Established, HandshakeFailed, KeyLog, LookUp, SessionExports, SessionGone, Suspicious,
    };
    #[pymodule_export]
    use crate::simulator::{Fleet, Load};
    #[pymodule_export]
    use crate::values::{Alive, Cancelled, Download, Failure, Notification, Progress, Request, Response};

    const SECURITY: [&str; 8] = [
        "LookUp",
        "Established",
        "Ended",
        "HandshakeFailed",
        "Suspicious",
        "SessionExports",
        "SessionGone",
        "KeyLog",
    ];
    const OTHERS: [&str; 8] = [
        "Request",
        "Response",
        "Failure",
        "Notification",
        "Progress",
        "Download",
        "Cancelled",
        "Alive",
    ];

    fn union<'py>(module: &Bound<'py, PyModule>, names: &[&str]) -> PyResult<Bound<'py, PyAny>> {
        let (first, others) = names.split_first().unwrap_or((&"Request", &[]));
        others.iter().try_fold(module.getattr(*first)?, |union, name| {
            union.bitor(module.getattr(*name)?)
        })
    }

    /// `Event` and `SecurityEvent` are unions of the event classes, for annotations.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("SecurityEvent", union(module, &SECURITY)?)?;
        module.add("Event", union(module, &[OTHERS, SECURITY].concat())?)
    }
}
