"""A package that the server pushes block by block (Block1, RFC 7959): an image goes into its slot as it comes, an
envelope is kept in memory until it is whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lwm2m_device import fetcher
from lwm2m_device.tree import RequestError
from lwm2m_server.firmware.refusals import RefusalCode, refusal
from lwm2m_server.transport import Code


class Target(fetcher.Target, Protocol):
    """Where a pushed package goes."""

    @property
    def plain(self) -> bool:
        """Say whether packages are images rather than envelopes."""
        ...

    def holds(self, offset: int, data: bytes) -> bool:
        """Say whether these bytes are already stored at this offset."""
        ...


@dataclass(frozen=True)
class Block:
    """Bytes of a package from `offset` on, and whether `more` follow; `announced` is its Size1 in bytes, else 0."""

    offset: int
    data: bytes
    more: bool = False
    announced: int = 0


class Push:
    """Has the blocks of a package come in order and find room. `stored` is called when some went to the target."""

    def __init__(self, target: Target, stored: Callable[[], None]) -> None:
        self.announced = 0  # bytes of the package, by its first block
        self._target = target
        self._stored = stored
        self._envelope: bytearray | None = None

    def take(self, block: Block, begin: Callable[[], None], *, under_way: bool) -> None:
        """Keep a block, unless it was kept already and the answer to it got lost.

        The first one asks the machine to `begin`; `under_way` says whether that was done for this package. Raises
        RequestError for a block that does not follow, and Refusal when the package does not fit.
        """
        under_way = under_way and (self._target.plain or self._envelope is not None)
        if under_way and self._holds(block):
            return
        if block.offset == 0:
            begin()
            self.announced = block.announced
            self._envelope = None if self._target.plain else bytearray()
        held = self._target.offset if self._envelope is None else len(self._envelope)
        if block.offset and not (under_way and block.offset == held):
            raise RequestError(
                Code.REQUEST_ENTITY_INCOMPLETE, f"Byte {block.offset} does not follow byte {held}."
            )
        self._check_room(max(self.announced, block.offset + len(block.data)))
        if self._envelope is not None:
            self._envelope += block.data
        else:
            self._target.store(block.data)
            self._stored()

    def forget(self) -> bytes | None:
        """Return what is in memory, which is the envelope once it is whole, and keep it no longer."""
        envelope, self._envelope = self._envelope, None
        return None if envelope is None else bytes(envelope)

    def _holds(self, block: Block) -> bool:
        if self._envelope is None:
            return self._target.holds(block.offset, block.data)
        end = block.offset + len(block.data)
        return bool(block.data) and self._envelope[block.offset : end] == block.data

    def _check_room(self, size: int) -> None:
        limit = self._target.package_limit
        if size > limit:
            raise refusal(RefusalCode.STORAGE_FULL, f"The package has {size} bytes; at most {limit} fit.")
