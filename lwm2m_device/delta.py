"""Takes an image as a delta to the one that runs, where the server has one (see firmware.deltas.negotiation).

The patch is stored at the end of the inactive slot, the image is made from the start of the same slot, both in
small pieces. What is downloaded is never fetched again: after a power cut the download goes on behind its last
mark, and an application that was cut off goes on behind the last page that it had written. The result has to have
the digest that the manifest names; if it has another one, or the patch can't be used, the whole image is fetched
and the server is told.
"""

import contextlib
import hashlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from lwm2m_device.download import Download
from lwm2m_device.fetcher import Fetcher, FetchFailed
from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout
from lwm2m_device.settings import Log
from lwm2m_device.slots import Slot
from lwm2m_device.update_state import UpdateState
from lwm2m_device.updater import Updater
from lwm2m_device.uri import CoapUri
from lwm2m_server.errors import Lwm2mError
from lwm2m_server.firmware.deltas import Method, PatchError, Source, apply
from lwm2m_server.firmware.deltas.negotiation import SEGMENT, Description, Report, Wish, read_description
from lwm2m_server.firmware.refusals import RefusalCode
from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.transport import Code, Response, TransportError

_MAGIC = b"DLTA"
_HEADER = struct.Struct("<4sH2x32s32s32sI24s255sx")  # magic, form, target, base, patch, size, method, path
_FORM = 1
_CRC = struct.Struct("<I")
_RECORD = _HEADER.size + _CRC.size
_FLAG = 16  # bytes: the largest unit that flash is programmed in
_COMPLETE_AT = -(-_RECORD // _FLAG) * _FLAG
_FAILED_AT = _COMPLETE_AT + _FLAG
_HEADER_LENGTH = _FAILED_AT + _FLAG
_ASK_PATIENCE = 60.0
"""Seconds that a device waits for a server that is making the delta, before it takes the whole image."""


@dataclass(frozen=True)
class PatchHeader:
    """Which patch lies in the slot: for which image (digest) on which base, and where it comes from."""

    target: bytes
    base: bytes
    description: Description

    def encode(self) -> bytes:
        """Return the record with its checksum."""
        patch = self.description
        body = _HEADER.pack(
            _MAGIC,
            _FORM,
            self.target,
            self.base,
            patch.digest,
            patch.size,
            patch.method.encode(),
            "/".join(patch.path).encode(),
        )
        return body + _CRC.pack(zlib.crc32(body))


def _decode(raw: bytes) -> PatchHeader | None:
    body, checksum = raw[: _HEADER.size], raw[_HEADER.size : _RECORD]
    magic, form, target, base, patch, size, method, path = _HEADER.unpack(body)
    if magic != _MAGIC or form != _FORM or _CRC.unpack(checksum)[0] != zlib.crc32(body):
        return None
    segments = tuple(path.rstrip(b"\0").decode().split("/"))
    return PatchHeader(target, base, Description(method.rstrip(b"\0").decode(), segments, size, patch))


class PatchArea:
    """The end of a slot: the patch, and behind it, in the last pages, its header."""

    def __init__(self, flash: Flash, layout: Layout, slot: Slot) -> None:
        self._flash = flash
        self._layout = layout
        self._slot = slot
        self._page = layout.page_size
        self._header_pages = -(-_HEADER_LENGTH // self._page)
        self._pages = -(-slot.capacity // self._page)
        self._header_at = (self._pages - self._header_pages) * self._page

    def fits(self, image_size: int, patch_size: int) -> bool:
        """Say whether image and patch have room side by side."""
        pages = -(-image_size // self._page) + -(-patch_size // self._page)
        return pages + self._header_pages <= self._pages

    def load(self) -> PatchHeader | None:
        """Return the header, or None when there is no valid one."""
        return _decode(self._slot.read(self._header_at, _HEADER_LENGTH))

    def begin(self, header: PatchHeader) -> Download:
        """Make room for a patch; the slot becomes unbootable."""
        download = self.download(header)
        download.begin()
        for page in range(self._header_pages):
            self._slot.erase_page(self._header_at // self._page + page)
        self._slot.write(self._header_at, header.encode())
        self._flash.sync()
        return download

    def download(self, header: PatchHeader) -> Download:
        """Return the writer of the patch."""
        return Download(self._flash, self._layout, self._place(header))

    def source(self, header: PatchHeader) -> Source:
        """Return the stored patch."""
        return Source(self._place(header).read, header.description.size)

    def is_complete(self) -> bool:
        """Say whether the whole patch was stored, and found intact."""
        return self._is_set(_COMPLETE_AT)

    def is_failed(self) -> bool:
        """Say whether this patch did not serve."""
        return self._is_set(_FAILED_AT)

    def set_complete(self) -> None:
        """Note that the whole patch is there."""
        self._set(_COMPLETE_AT)

    def set_failed(self) -> None:
        """Note that the patch does not serve: it is not tried again, also after a restart."""
        self._set(_FAILED_AT)

    def _place(self, header: PatchHeader) -> "_Tail":
        pages = -(-header.description.size // self._page)
        return _Tail(self._slot, self._header_at - pages * self._page, pages * self._page)

    def _is_set(self, at: int) -> bool:
        # One bit is enough: a torn write of this flag can only have been a write of it.
        return self._slot.read(self._header_at + at, _FLAG) != b"\xff" * _FLAG

    def _set(self, at: int) -> None:
        if not self._is_set(at):
            self._slot.write(self._header_at + at, bytes(_FLAG))
            self._flash.sync()


class _Tail:
    """Some pages of a slot, written like a slot of their own."""

    def __init__(self, slot: Slot, start: int, capacity: int) -> None:
        self._slot = slot
        self._start = start
        self.capacity = capacity

    def drop(self) -> None:
        self._slot.drop()

    def erase_page(self, page: int) -> None:
        self._slot.erase_page(self._start // self._slot.page_size + page)

    def write(self, offset: int, data: bytes) -> None:
        self._slot.write(self._start + offset, data)

    def read(self, offset: int, length: int) -> bytes:
        return self._slot.read(self._start + offset, length)

    def digest_of(self, size: int) -> bytes:
        digest = hashlib.sha256()
        for offset in range(0, size, 4096):
            digest.update(self.read(offset, min(4096, size - offset)))
        return digest.digest()


class PatchTarget:
    """The patch as something that a `Fetcher` fills."""

    def __init__(self, download: Download, size: int) -> None:
        self._download = download
        self.state = UpdateState(size=size)
        self.package_limit = size

    @property
    def offset(self) -> int:
        """The next byte of the patch that is wanted."""
        return self._download.offset

    def expect(self, etag: bytes, size: int = 0) -> None:
        """Hold what the server serves against what it promised: a patch never changes under its path."""
        if size not in (0, self.state.size):
            raise PatchError(f"The server serves {size} bytes, the patch has {self.state.size}.")
        if self.state.etag not in (b"", etag):
            raise PatchError("The server serves other bytes than before (changed ETag).")
        self.state = replace(self.state, etag=etag)

    def store(self, data: bytes) -> None:
        """Store the next bytes."""
        if self.offset + len(data) > self.state.size:
            raise PatchError(f"The patch is longer than the {self.state.size} bytes that were announced.")
        self._download.store(data)


class DeltaTaker:
    """Makes the wanted image from the running one, if that can be had.

    `fetcher` is the one that would fetch the image; `progress` hears of each stretch of a patch that was stored.
    """

    def __init__(
        self,
        updater: Updater,
        fetcher: Fetcher,
        methods: tuple[str, ...],
        progress: Callable[[int, int], None],
        log: Log,
    ) -> None:
        self._updater = updater
        self._fetcher = fetcher
        self._aim()
        self._methods = methods
        self._progress = progress
        self._log = log

    async def take(self, source: CoapUri) -> bool:
        """Say whether the whole image lies in the slot now; if not, fetch it from `source`.

        Raises FlashFault.
        """
        if self._updater.takes_delta:
            return False
        if self._updater.encrypted:
            self._log("The image is encrypted: no delta applies to it")
            return False
        self._aim()
        if self._updater.plain or not self._methods or self._running is None or self._image is None:
            return False
        header = self._stored()
        if header is None:
            if self._updater.offset:
                return False
            header = await self._negotiate(source)
            if header is None:
                return False
        if self._area.is_failed():
            return False
        try:
            await self._fetch(source, header)
            self._apply(header)
        except FetchFailed as error:
            self._area.set_failed()
            self._log(f"The delta can't be had ({error.text}); fetching the whole image")
        except PatchError as error:
            self._area.set_failed()
            self._log(f"The delta does not serve ({error.message}); fetching the whole image")
            await self._report(source, header, error.code)
        else:
            return True
        self._updater.restart()
        return False

    def _aim(self) -> None:
        """Look at where the wanted image goes, and at the one that a delta would start from."""
        updater = self._updater
        self._area = PatchArea(updater.flash, updater.layout, updater.slot)
        base = updater.base()
        self._running = None if base is None else base[0]
        self._image = None if base is None else base[1]

    def _stored(self) -> PatchHeader | None:
        """Return the header of a patch for this very update."""
        header = self._area.load()
        if header is None or self._image is None:
            return None
        wanted = header.target == self._updater.state.digest and header.base == self._image.digest
        return header if wanted else None

    async def _negotiate(self, source: CoapUri) -> PatchHeader | None:
        """Ask for a delta and make room for it; None: take the whole image."""
        assert self._image is not None  # noqa: S101  asked for only then
        wish = Wish(self._image.digest, self._methods)
        response = await self._ask(source, wish)
        if response is None or response.code != Code.CONTENT:
            return None
        if response.content_format not in (None, ContentFormat.CBOR):
            return None
        try:
            description = read_description(response.payload)
        except Lwm2mError as error:
            self._log(f"The server's delta is not understood: {error.message}")
            return None
        size = self._updater.state.size
        if description.method not in self._methods or description.size >= size:
            return None
        if not self._area.fits(size, description.size):
            self._log("There is no room for image and delta side by side; fetching the whole image")
            return None
        header = PatchHeader(self._updater.state.digest, self._image.digest, description)
        self._area.begin(header)
        share = description.size * 100 / size
        self._log(f"Delta by {description.method}: {description.size} bytes, {share:.1f} % of the image")
        return header

    async def _ask(self, source: CoapUri, wish: Wish) -> Response | None:
        """Return the server's answer, waiting a little while it makes the delta."""
        pace = self._fetcher.pace
        give_up = pace.now() + _ASK_PATIENCE
        while True:
            try:
                response = await self._fetcher.ask(Code.GET, _beside(source, wish.query()))
            except TransportError:
                return None
            pause = float(response.max_age or 5)
            if response.code != Code.SERVICE_UNAVAILABLE or pace.now() + pause > give_up:
                return response
            await pace.sleep(pause)

    async def _fetch(self, source: CoapUri, header: PatchHeader) -> None:
        """Store what is missing of the patch; raises FetchFailed and PatchError."""
        if self._area.is_complete():
            return
        patch = header.description
        download = self._area.download(header)
        download.resume()
        fetcher = replace(
            self._fetcher,
            updater=PatchTarget(download, patch.size),
            stored=lambda: self._progress(download.offset, patch.size),
        )
        self._log(f"Fetching the delta, {patch.size} bytes, from byte {download.offset}")
        await fetcher.image(replace(source, path=patch.path, query=()))
        download.flush()
        if download.offset != patch.size or download.digest() != patch.digest:
            raise PatchError("The delta is not the one that was announced.", code=RefusalCode.DIGEST_MISMATCH)
        self._area.set_complete()
        self._updater.restart()

    def _apply(self, header: PatchHeader) -> None:
        """Write the image behind what an earlier start has written of it; raises PatchError."""
        assert self._running is not None and self._image is not None  # noqa: S101, PT018
        updater, digest = self._updater, hashlib.sha256()
        if not updater.offset:
            updater.restart()
        place = 0

        def write(piece: bytes) -> None:
            nonlocal place
            digest.update(piece)
            place += len(piece)
            updater.store(piece[max(0, len(piece) - max(0, place - updater.offset)) :])

        try:
            method = Method(header.description.method)
        except ValueError:
            raise PatchError(f"The method {header.description.method!r} is not known here.") from None
        base = Source(self._running.read, self._image.size)
        apply(method, base, self._area.source(header), write, size=updater.state.size)
        if digest.digest() != updater.state.digest:
            raise PatchError(
                "The image that it makes is not the one of the manifest.", code=RefusalCode.DIGEST_MISMATCH
            )
        self._log(f"The delta made the image of {updater.state.size} bytes")

    async def _report(self, source: CoapUri, header: PatchHeader, code: str) -> None:
        report = Report(header.description.digest, str(code))
        with contextlib.suppress(TransportError):
            await self._fetcher.ask(Code.POST, _beside(source, report.query()))


def _beside(source: CoapUri, query: tuple[str, ...]) -> CoapUri:
    return replace(source, path=(*source.path, SEGMENT), query=query)
