"""What both transports share: the receivers of events, and the exceptions that failures become."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from lwm2m_server._engine import EngineError, QueueFull
from lwm2m_server.transport.api import (
    Download,
    Failure,
    HandshakeError,
    PeerGone,
    Request,
    RequestReset,
    RequestTimeout,
    SecurityEvent,
    TransferFailed,
    TransportBusy,
    TransportError,
)
from lwm2m_server.transport.codes import Code

_T = TypeVar("_T")
_TEXT = {
    "timeout": "no answer in time",
    "reset": "the peer rejected the message with a Reset",
    "peer-gone": "the peer's state was dropped",
    "cancelled": "the exchange was cancelled",
    "too-large": "the body is larger than allowed",
    "protocol": "the peer broke the protocol",
    "handshake": "the handshake failed",
}
_ERRORS: dict[str, type[TransportError]] = {
    "timeout": RequestTimeout,
    "reset": RequestReset,
    "peer-gone": PeerGone,
    "handshake": HandshakeError,
}


def request_error(failure: Failure) -> TransportError:
    """Return the exception for a request or observation that failed."""
    return _ERRORS.get(failure.reason, TransportError)(_text(failure), code=failure.reason)


def transfer_error(failure: Failure) -> TransferFailed:
    """Return the exception for a push that failed."""
    return TransferFailed(
        f"{_text(failure)}, {failure.offset} bytes were acknowledged",
        offset=failure.offset,
        reason=failure.reason,
    )


def _text(failure: Failure) -> str:
    text = f"{failure.peer.identity or failure.peer.address}: {_TEXT.get(failure.reason, failure.reason)}"
    return f"{text} ({failure.detail})" if failure.detail else text


class Handlers:
    """The receivers that `Transport.set_handlers` named.

    An exception in one is given to the event loop's exception handler, as asyncio does with callbacks; it
    neither stops the drain nor leaves requests without an answer.
    """

    def __init__(self) -> None:
        self.on_requests: Callable[[list[Request]], None] | None = None
        self.on_alive: Callable[[list[tuple[str, float]]], None] | None = None
        self.on_download: Callable[[Download], None] | None = None
        self.on_cancelled: Callable[[int], None] | None = None
        self.on_security: Callable[[list[SecurityEvent]], None] | None = None

    def requests(self, batch: list[Request], respond: Callable[[int, int], None]) -> None:
        """Deliver a batch; without a receiver all get 4.04, and 5.00 when the receiver breaks.

        A 5.00 to a request that was answered before the break is ignored by the transport.
        """
        if self.on_requests is None:
            for request in batch:
                respond(request.exchange, Code.NOT_FOUND)
        elif not self.call(self.on_requests, batch):
            for request in batch:
                respond(request.exchange, Code.INTERNAL_SERVER_ERROR)

    def call(self, receiver: Callable[[_T], None] | None, value: _T) -> bool:
        """Call one receiver, if there is one; return False when it raised."""
        if receiver is None:
            return True
        try:
            receiver(value)
        except Exception as error:  # noqa: BLE001  a receiver's fault must not reach the others
            loop = asyncio.get_running_loop()
            loop.call_exception_handler(
                {"message": f"receiver {receiver!r} of transport events failed", "exception": error}
            )
            return False
        return True


class EngineErrors:
    """Turns the engine's refusals into `TransportError`s; `field` is the setting or argument at fault.

    `then` is called when nothing was refused. A class, because it is entered for every action of every device:
    a generator costs four times as much.
    """

    __slots__ = ("_then",)

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        self._then = then

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            if self._then is not None:
                self._then()
        elif isinstance(error, QueueFull):
            raise TransportBusy(str(error), hint="try again a little later") from error
        elif isinstance(error, EngineError | OverflowError):
            name, colon, _ = str(error).partition(":")
            field = name if colon and name.isidentifier() else None
            raise TransportError(str(error), code="engine", field=field) from error


engine_errors = EngineErrors()
