//! The Python module `lwm2m_server._engine`: conversion between the engine's types and Python's, nothing else.

use pyo3::prelude::*;

/// The engine of lwm2m-server.
#[pymodule]
mod _engine {}
