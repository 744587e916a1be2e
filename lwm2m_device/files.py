"""Files that people name on the command line: read with errors for them, secrets written for their owner alone."""

import os
from pathlib import Path

from lwm2m_server.errors import InvalidInput


def read(file: Path, field: str) -> bytes:
    """Return the content; raises InvalidInput naming the field."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"The file {file} can't be read: {error.strerror}.", field=field) from None


def write_private(file: Path, content: str, field: str) -> None:
    """Write a new file that nobody else may read; raises InvalidInput, also when the file is there already."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as out:
            out.write(content)
    except OSError as error:
        raise InvalidInput(
            f"The file {file} can't be written: {error.strerror}.",
            field=field,
            hint="Name a file that isn't there yet, in a folder that is.",
        ) from None
