//! The engine's events as Python objects, and Python's arguments as the engine's values.

use coap::{Block, Response};
use endpoint::{Error, Event, Remote};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{EngineError, QueueFull};
use crate::peer::Peer;
use crate::security;
use crate::values::{self, BlockTuple};

/// The engine's errors as exceptions.
pub fn error(error: Error) -> PyErr {
    match error {
        Error::QueueFull => QueueFull::new_err("too many actions wait; try again after the next drain"),
        Error::Invalid(what) => EngineError::new_err(what),
        Error::Closed(why) => EngineError::new_err(why),
    }
}

fn block_tuple(block: Block) -> BlockTuple {
    (block.num, block.more, u32::try_from(block.size()).unwrap_or(0))
}

/// A block option out of number, more and size in bytes.
pub fn block(name: &str, (num, more, size): BlockTuple) -> PyResult<Block> {
    let legal = u16::try_from(size)
        .ok()
        .filter(|size| Block::new(num, more, *size).size() == usize::from(*size));
    match legal {
        Some(size) if num <= coap::block::MAX_NUM => Ok(Block::new(num, more, size)),
        _ => Err(EngineError::new_err(format!(
            "{name}: number {num} and size {size} are not a block; the size is 16, 32, … or 1024, the number below 2^20"
        ))),
    }
}

/// One event as an object of its class.
pub fn event(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    let object = match event {
        Event::Request {
            exchange,
            peer,
            request,
        } => request_object(py, exchange, peer, request)?.into_any(),
        Event::Response {
            handle,
            peer,
            response,
        } => response_object(py, handle, peer, response)?.into_any(),
        Event::Failure {
            handle,
            peer,
            reason,
            detail,
            offset,
        } => {
            let (reason, detail) = (reason.to_owned(), detail.to_owned());
            Py::new(
                py,
                values::Failure {
                    handle,
                    peer: Peer::of(&peer),
                    reason,
                    detail,
                    offset,
                },
            )?
            .into_any()
        }
        Event::Notification {
            handle,
            peer,
            response,
        } => {
            let notification = values::Notification {
                handle,
                peer: Peer::of(&peer),
                code: response.code.0,
                content_format: response.content_format,
                payload: PyBytes::new(py, &response.payload).unbind(),
            };
            Py::new(py, notification)?.into_any()
        }
        Event::Progress {
            handle,
            offset,
            size,
            repeated,
        } => Py::new(
            py,
            values::Progress {
                handle,
                offset,
                size,
                repeated,
            },
        )?
        .into_any(),
        Event::Download(download) => {
            let download = values::Download {
                peer: Peer::of(&download.peer),
                path: download.path.to_vec(),
                digest: download.digest,
                offset: download.offset,
                size: download.size,
                repeated: download.repeated,
            };
            Py::new(py, download)?.into_any()
        }
        Event::Cancelled { exchange } => Py::new(py, values::Cancelled { exchange })?.into_any(),
        Event::Alive(updates) => {
            let updates = updates
                .into_iter()
                .map(|(location, seen)| (location.to_string(), seen))
                .collect();
            Py::new(py, values::Alive { updates })?.into_any()
        }
        Event::Security(news) => security::object(py, news)?,
    };
    Ok(object)
}

fn request_object(
    py: Python<'_>,
    exchange: u64,
    peer: Remote,
    request: coap::Request,
) -> PyResult<Py<values::Request>> {
    let object = values::Request {
        exchange,
        peer: Py::new(py, Peer::of(&peer))?,
        code: request.code.0,
        path: request.path,
        query: request.query,
        content_format: request.content_format,
        accept: request.accept,
        observe: request.observe,
        etags: request.etags,
        payload: PyBytes::new(py, &request.payload).unbind(),
        block1: request.block1.map(block_tuple),
        size1: request.size1,
    };
    Py::new(py, object)
}

fn response_object(
    py: Python<'_>,
    handle: u64,
    peer: Remote,
    response: Response,
) -> PyResult<Py<values::Response>> {
    let object = values::Response {
        handle,
        peer: Peer::of(&peer),
        code: response.code.0,
        content_format: response.content_format,
        payload: PyBytes::new(py, &response.payload).unbind(),
        location_path: response.location_path,
        location_query: response.location_query,
        etag: response.etag,
        max_age: response.max_age,
        block2: response.block2.map(block_tuple),
        size2: response.size2,
        observe: response.observe,
    };
    Py::new(py, object)
}
