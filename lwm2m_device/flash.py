"""Simulated NOR flash in a file.

Rules of the real part: a page is erased as a whole to 0xFF; programming works on whole units of
`write_size` bytes, each once between two erases (as on parts with error correction); both can be torn by
a power cut, and cells can rot. What a tear or rot does to which cells is chosen by a seed. Every
operation goes straight to the file (`pwrite`), so that SIGKILL at any point is like a power cut; `sync`
is the barrier that a loss of power of the host needs as well. Wear is counted by page.
"""

import fcntl
import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Tear:
    """Power is lost when `share` (0..1) of an operation is done; `seed` chooses the cells that suffer."""

    share: float
    seed: int = 0


class PowerSupply(Protocol):
    """Decides how far each operation comes; tests and ordered faults cut the power here."""

    def spend(self, operation: Operation, offset: int, size: int) -> Tear | None:
        """Return None to let it finish, or where it is torn."""
        ...

    def lost(self) -> None:
        """Power is gone, the torn cells are as they are; PowerCut is raised when this returns."""
        ...


class Mains:
    """Power that never fails."""

    def spend(self, operation: Operation, offset: int, size: int) -> Tear | None:  # noqa: ARG002
        """Let every operation finish."""
        return None

    def lost(self) -> None:
        """Never happens."""


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
        write_size: int = 1,
        supply: PowerSupply | None = None,
        read_only: bool = False,
    ) -> None:
        if size % page_size or page_size % write_size:
            raise FlashFault(
                f"Flash of {size} bytes does not consist of pages of {page_size} and units of {write_size} bytes."
            )
        self.file = file
        self.size = size
        self.page_size = page_size
        self.write_size = write_size
        self._dead = False
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
        """Program whole units that are erased; a short last unit is filled up with 0xFF."""
        self._check_power()
        data += bytes([ERASED]) * (-len(data) % self.write_size)
        self._check_range(offset, len(data))
        if offset % self.write_size:
            raise FlashFault(f"Write at {offset:#x} is not aligned to units of {self.write_size} bytes.")
        if not self.is_erased(offset, len(data)):
            raise FlashFault(f"Write of {len(data)} bytes at {offset:#x} into cells that are not erased.")
        tear = self._spend("write", offset, len(data))
        if tear is None:
            os.pwrite(self._descriptor, data, offset)
            return
        done = int(len(data) // self.write_size * tear.share) * self.write_size
        under_way = data[done : done + self.write_size]
        chance = random.Random(tear.seed)  # noqa: S311  a simulation that must repeat
        half = bytes(byte | chance.getrandbits(8) for byte in under_way)
        os.pwrite(self._descriptor, data[:done] + half, offset)
        self._die(f"write at {offset:#x}")

    def erase(self, offset: int, length: int) -> None:
        """Set whole pages to 0xFF, one operation a page."""
        self._check_power()
        self._check_range(offset, length)
        if offset % self.page_size or length % self.page_size:
            raise FlashFault(
                f"Erase of {length} bytes at {offset:#x} is not aligned to pages of {self.page_size}."
            )
        for page in range(offset, offset + length, self.page_size):
            tear = self._spend("erase", page, self.page_size)
            self._count_wear(page // self.page_size)
            if tear is None:
                os.pwrite(self._descriptor, bytes([ERASED]) * self.page_size, page)
                continue
            os.pwrite(self._descriptor, self._half_erased(page, tear), page)
            self._die(f"erase at {page:#x}")

    def rot(self, seed: int, bits: int, *, start: int = 0, length: int | None = None) -> list[int]:
        """Let so many bits of a range (None: to the end) change by themselves; return the bytes' offsets."""
        chance = random.Random(seed)  # noqa: S311  a simulation that must repeat
        length = self.size - start if length is None else length
        self._check_range(start, length)
        places = [start + chance.randrange(length) for _ in range(bits)]
        for place in places:
            byte = self.read(place, 1)[0] ^ 1 << chance.randrange(8)
            os.pwrite(self._descriptor, bytes([byte]), place)
        return places

    @contextmanager
    def at_the_factory(self) -> Iterator[None]:
        """Work on power that never fails, which is not counted: what is done before the device goes out."""
        supply, self._supply = self._supply, Mains()
        try:
            yield
        finally:
            self._supply = supply

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

    def _check_power(self) -> None:
        if self._dead:
            raise PowerCut("the power is gone")

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FlashFault(f"{length} bytes at {offset:#x} are outside of the flash of {self.size} bytes.")

    def _count_wear(self, page: int) -> None:
        raw = _WEAR.pack(min(self.wear(page) + 1, 0xFFFFFFFF))
        os.pwrite(self._descriptor, raw, self.size + page * _WEAR.size)

    def _spend(self, operation: Operation, offset: int, length: int) -> Tear | None:
        return self._supply.spend(operation, offset, length)

    def _half_erased(self, page: int, tear: Tear) -> bytes:
        """Cells of a page erase side by side: some bytes are done, the others have some bits set."""
        chance = random.Random(tear.seed)  # noqa: S311  a simulation that must repeat
        fate = chance.randbytes(self.page_size)
        limit = int(tear.share * 256)
        old = self.read(page, self.page_size)
        return bytes(
            ERASED if luck < limit else byte | luck & 0x11 for byte, luck in zip(old, fate, strict=True)
        )

    def _die(self, where: str) -> None:
        self._dead = True
        self._supply.lost()
        raise PowerCut(where)


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
