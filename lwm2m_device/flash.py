"""Simulated NOR flash in a file.

Rules of the real part: a page is erased as a whole to 0xFF, a write only clears bits, both can be torn
by a power cut. Every operation goes straight to the file (`pwrite`), so that SIGKILL at any point is
like a power cut; `sync` is the barrier that a loss of power of the host needs as well. Wear is counted
by page.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from lwm2m_server.errors import Conflict, InvalidInput, Lwm2mError

ERASED = 0xFF
_WEAR = struct.Struct("<I")

Operation = Literal["write", "erase"]


class PowerCut(BaseException):
    """Power was lost during a flash operation."""


class FlashFault(Lwm2mError):
    """The device broke a rule of the flash: it wrote over cells not erased, or out of range."""

    code = "flash-fault"


class PowerSupply(Protocol):
    """Decides how far each operation comes; tests cut the power here."""

    def spend(self, operation: Operation, offset: int, size: int) -> int | None:
        """Return None to let it finish, or the number of bytes done before power is lost (0..size)."""
        ...


class Mains:
    """Power that never fails."""

    def spend(self, operation: Operation, offset: int, size: int) -> int | None:  # noqa: ARG002
        """Let every operation finish."""
        return None


class Flash:
    """`size` bytes in pages of `page_size`, kept in `file`, which is locked while it is open.

    The file holds the cells and after them the wear of each page (u32 erase cycles). A shorter file is
    padded as erased. `read_only` opens it without a lock and leaves it as it is; what is missing reads
    as erased.
    """

    def __init__(
        self,
        file: Path,
        *,
        size: int,
        page_size: int,
        supply: PowerSupply | None = None,
        read_only: bool = False,
    ) -> None:
        if size % page_size:
            raise FlashFault(f"Flash of {size} bytes does not consist of pages of {page_size} bytes.")
        self.file = file
        self.size = size
        self.page_size = page_size
        self._supply: PowerSupply = supply or Mains()
        if read_only:
            self._descriptor = _open_to_read(file)
            return
        self._descriptor = _open_locked(file)
        present = os.fstat(self._descriptor).st_size
        if present < size:
            os.pwrite(self._descriptor, bytes([ERASED]) * (size - present), present)
        os.ftruncate(self._descriptor, size + _WEAR.size * (size // page_size))
        os.fsync(self._descriptor)

    def wear(self, page: int) -> int:
        """Return how often a page was erased."""
        raw = os.pread(self._descriptor, _WEAR.size, self.size + page * _WEAR.size)
        return int(_WEAR.unpack(raw.ljust(_WEAR.size, b"\0"))[0])

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`."""
        self._check_range(offset, length)
        return os.pread(self._descriptor, length, offset).ljust(length, bytes([ERASED]))

    def write(self, offset: int, data: bytes) -> None:
        """Clear bits: each byte becomes old & new, and it is a fault when that is not `data`."""
        self._check_range(offset, len(data))
        old = os.pread(self._descriptor, len(data), offset)
        held = int.from_bytes(old, "big") & int.from_bytes(data, "big")
        if held != int.from_bytes(data, "big"):
            raise FlashFault(
                f"Write of {len(data)} bytes at {offset:#x} would set bits; the page was not erased."
            )
        with self._powered("write", offset, len(data)) as done:
            os.pwrite(self._descriptor, data[:done], offset)
            if done < len(data):  # the byte under way is left with some of its bits programmed
                os.pwrite(self._descriptor, bytes([data[done] | (old[done] & 0x55)]), offset + done)

    def erase(self, offset: int, length: int) -> None:
        """Set whole pages to 0xFF, one operation a page."""
        self._check_range(offset, length)
        if offset % self.page_size or length % self.page_size:
            raise FlashFault(
                f"Erase of {length} bytes at {offset:#x} is not aligned to pages of {self.page_size}."
            )
        for page in range(offset, offset + length, self.page_size):
            self._count_wear(page // self.page_size)
            with self._powered("erase", page, self.page_size) as done:
                os.pwrite(self._descriptor, bytes([ERASED]) * done, page)
                if done < self.page_size:  # cells that were on their way read as some bits set
                    byte = os.pread(self._descriptor, 1, page + done)[0]
                    os.pwrite(self._descriptor, bytes([byte | 0x2A]), page + done)

    def is_erased(self, offset: int, length: int) -> bool:
        """Say whether every byte of the range reads 0xFF."""
        return self.read(offset, length) == bytes([ERASED]) * length

    def sync(self) -> None:
        """Return when everything written so far outlives a loss of power of the host."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Release the file; closing twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FlashFault(f"{length} bytes at {offset:#x} are outside of the flash of {self.size} bytes.")

    def _count_wear(self, page: int) -> None:
        raw = _WEAR.pack(min(self.wear(page) + 1, 0xFFFFFFFF))
        os.pwrite(self._descriptor, raw, self.size + page * _WEAR.size)

    @contextmanager
    def _powered(self, operation: Operation, offset: int, length: int) -> Iterator[int]:
        """Yield how many bytes get done; raise PowerCut afterwards when the supply said so."""
        done = self._supply.spend(operation, offset, length)
        yield length if done is None else min(done, length)
        if done is not None:
            raise PowerCut(f"{operation} at {offset:#x}")


def check_unused(file: Path) -> None:
    """Raise Conflict when another device has the file open."""
    os.close(_open_locked(file))


def _open_to_read(file: Path) -> int:
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInput(f"The flash file {file} can't be read: {error.strerror}.", field="flash") from None


def _open_locked(file: Path) -> int:
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInput(
            f"The flash file {file} can't be opened: {error.strerror}.",
            field="flash",
            hint="Name a file in a directory that exists and is writable.",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Conflict(
            f"The flash file {file} is in use by another device.",
            field="flash",
            hint="Stop that device, or give this one its own file.",
        ) from None
    return descriptor
