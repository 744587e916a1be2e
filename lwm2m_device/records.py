"""A state record in two alternating copies: a write never touches the copy that holds the present state.

Each copy has a counter and a CRC. The valid copy with the highest counter counts; a torn write leaves
the one before.
"""

import struct
import zlib

from lwm2m_device.flash import Flash, FlashFault
from lwm2m_device.layout import Region

_HEADER = struct.Struct("<4sHHQ")  # magic, version of the payload's form, length of the payload, counter
_MAGIC = b"TWIN"
_CRC = struct.Struct("<I")


class TwinRecord:
    """One record over a region of two copies.

    `damaged` tells, after `load`, that data was there but none was valid.
    """

    def __init__(self, flash: Flash, region: Region, *, version: int) -> None:
        self._flash = flash
        self._version = version
        self._copy_size = region.length // 2
        self._copies = (region.start, region.start + self._copy_size)
        self._counter = 0
        self._current: int | None = None
        self.damaged = False

    def load(self) -> bytes | None:
        """Return the present payload, or None when there is no valid one."""
        self._counter, self._current = 0, None
        best: bytes | None = None
        dirty = False
        for index, start in enumerate(self._copies):
            found = self._read(start)
            if found is None:
                dirty = dirty or not self._flash.is_erased(start, self._copy_size)
                continue
            counter, payload = found
            if best is None or counter > self._counter:
                best, self._counter, self._current = payload, counter, index
        self.damaged = best is None and dirty
        return best

    def store(self, payload: bytes) -> None:
        """Make `payload` the present state, durably; `load` must have been called once before."""
        header = _HEADER.pack(_MAGIC, self._version, len(payload), self._counter + 1)
        record = header + payload + _CRC.pack(zlib.crc32(header + payload))
        if len(record) > self._copy_size:
            raise FlashFault(f"A state record of {len(record)} bytes does not fit into {self._copy_size}.")
        target = 1 if self._current == 0 else 0
        # What a longer record left behind this one does no harm: the header says how long it is.
        page = self._flash.page_size
        self._flash.erase(self._copies[target], -(-len(record) // page) * page)
        self._flash.write(self._copies[target], record)
        self._flash.sync()
        self._counter, self._current = self._counter + 1, target

    def _read(self, start: int) -> tuple[int, bytes] | None:
        header = self._flash.read(start, _HEADER.size)
        magic, version, length, counter = _HEADER.unpack(header)
        if magic != _MAGIC or version != self._version or length > self._copy_size - _HEADER.size - _CRC.size:
            return None
        payload = self._flash.read(start + _HEADER.size, length)
        (checksum,) = _CRC.unpack(self._flash.read(start + _HEADER.size + length, _CRC.size))
        return (counter, payload) if checksum == zlib.crc32(header + payload) else None
