"""Exit codes of `lwm2m`, and the one way in which commands end with an error.

0 done, 1 failed (also: a watched campaign failed or was halted), 2 wrong usage or invalid input, 3 not found,
4 conflict with the present state, 5 not authorised, 6 server or device unreachable, 7 a signature, digest or
identity does not hold, 8 the device answered with an error, 130 interrupted.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from lwm2m_server.cli.output import clean
from lwm2m_server.errors import (
    Conflict,
    DeviceError,
    Forbidden,
    InvalidInput,
    Lwm2mError,
    NotFound,
    Unavailable,
    Untrusted,
)


class ExitCode(IntEnum):
    """What the shell sees."""

    OK = 0
    FAILED = 1
    INVALID = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAUTHORIZED = 5
    UNREACHABLE = 6
    UNTRUSTED = 7
    DEVICE = 8
    INTERRUPTED = 130


_CODES: dict[type[Lwm2mError], ExitCode] = {
    InvalidInput: ExitCode.INVALID,
    NotFound: ExitCode.NOT_FOUND,
    Conflict: ExitCode.CONFLICT,
    Forbidden: ExitCode.UNAUTHORIZED,
    Unavailable: ExitCode.UNREACHABLE,
    Untrusted: ExitCode.UNTRUSTED,
    DeviceError: ExitCode.DEVICE,
}


def exit_code(error: Lwm2mError) -> ExitCode:
    """Choose the code for an error."""
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), ExitCode.FAILED)


def explain(error: Lwm2mError) -> str:
    """Write an error as one line (one each, where there are several): field, what happened, the way out."""
    lines = []
    for problem in getattr(error, "problems", [error]):
        # A message that names the file needs no second name of it, with or without the line.
        place = (problem.field or "").partition(":")[0]
        where = f"{problem.field}: " if place and place not in problem.message else ""
        hint = (
            f" ({problem.hint.rstrip('.')})" if problem.hint and problem.hint not in problem.message else ""
        )
        lines.append(clean(f"error: {where}{problem.message}{hint}"))
    return "\n".join(lines)


@contextmanager
def errors_to_exit() -> Iterator[None]:
    """Turn errors for users into a line on standard error and an exit code; Ctrl-C ends quietly."""
    try:
        yield
    except Lwm2mError as error:
        print(explain(error), file=sys.stderr)
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:  # `lwm2m ... | head`
        sys.stderr.close()
        raise typer.Exit(ExitCode.OK) from None
