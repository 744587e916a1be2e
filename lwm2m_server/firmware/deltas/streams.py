"""What patches are read from and written to, such that neither an image nor a patch has to fit into memory."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lwm2m_server.errors import Lwm2mError

PIECE = 4096
"""Bytes that are read, predicted and written at a time."""

Read = Callable[[int, int], bytes]
"""Reads bytes: offset, length."""
Write = Callable[[bytes], None]


class PatchError(Lwm2mError):
    """The bytes are no patch of this method, or don't fit the base image; what was written so far is void."""

    code = "delta-unusable"


@dataclass(frozen=True, slots=True)
class Source:
    """`size` bytes that can be read at any offset."""

    read: Read
    size: int

    @classmethod
    def of(cls, content: bytes) -> "Source":
        """Wrap bytes in memory."""
        return cls(lambda offset, length: content[offset : offset + length], len(content))

    def piece(self, offset: int, length: int) -> bytes:
        """Return exactly these bytes; raises PatchError when they are not all inside."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise PatchError(f"The patch refers to bytes {offset} to {offset + length} of {self.size}.")
        return self.read(offset, length)


def added(left: bytes, right: bytes) -> bytes:
    """Add two stretches byte by byte, modulo 256."""
    return bytes((a + b) & 0xFF for a, b in zip(left, right, strict=True))


class Output:
    """Passes on what an application writes, at most `size` bytes in pieces; `finish` checks that it is all."""

    def __init__(self, write: Write, size: int) -> None:
        self.size = size
        self.written = 0
        self._write = write

    def write(self, data: bytes) -> int:
        """Write the bytes that follow; raises PatchError when there are too many."""
        if self.written + len(data) > self.size:
            raise PatchError(f"The patch makes more than the {self.size} bytes of the image.")
        for start in range(0, len(data), PIECE):
            self._write(data[start : start + PIECE])
        self.written += len(data)
        return len(data)

    def finish(self) -> None:
        """Raise PatchError when bytes are missing."""
        if self.written != self.size:
            raise PatchError(f"The patch makes {self.written} bytes, the image has {self.size}.")


class SourceFile(io.RawIOBase):
    """A source as a file, for libraries that want one."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be moved in."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most `size` bytes, all that are left when it is negative."""
        left = self._source.size - self._position
        length = left if size is None or size < 0 else min(size, left)
        data = self._source.read(self._position, length) if length > 0 else b""
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; raises PatchError when that is outside."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        if not 0 <= start + offset <= self._source.size:
            raise PatchError(f"The patch refers to byte {start + offset} of {self._source.size}.")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


class Decompressor(Protocol):
    """What `bz2` and `lzma` have in common."""

    @property
    def eof(self) -> bool:
        """Say whether the stream has ended."""
        ...

    @property
    def needs_input(self) -> bool:
        """Say whether nothing comes without more compressed bytes."""
        ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Take compressed bytes and return at most so many."""
        ...


class Packed:
    """A compressed stretch of a patch, unpacked as it is read. `errors` are the decompressor's."""

    def __init__(
        self,
        source: Source,
        start: int,
        end: int,
        decompressor: Decompressor,
        errors: tuple[type[Exception], ...],
    ) -> None:
        self._source = source
        self._position = start
        self._end = end
        self._decompressor = decompressor
        self._errors = errors

    def read(self, length: int) -> bytes:
        """Return exactly so many bytes; raises PatchError when there are fewer."""
        out = bytearray()
        while len(out) < length:
            out += self._more(length - len(out))
        return bytes(out)

    def _more(self, length: int) -> bytes:
        decompressor = self._decompressor
        if decompressor.eof or (decompressor.needs_input and self._position >= self._end):
            raise PatchError("The patch ends too early.")
        data = b""
        if decompressor.needs_input:
            data = self._source.piece(self._position, min(1024, self._end - self._position))
            self._position += len(data)
        try:
            return decompressor.decompress(data, length)
        except self._errors:
            raise PatchError("A compressed part of the patch is damaged.") from None
