//! The module's exceptions.

use pyo3::create_exception;
use pyo3::exceptions::PyException;

create_exception!(
    lwm2m_server._engine,
    EngineError,
    PyException,
    "The engine refused an action or a setting; the message says why."
);
create_exception!(
    lwm2m_server._engine,
    QueueFull,
    EngineError,
    "Too many actions wait; try again after the next drain."
);
