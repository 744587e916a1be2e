"""Where things lie in the flash: geometry, factory and boot records, journal, update state, slots.

Three layouts. `ab`: two slots, each can run. `swap`: the first slot runs, the second takes downloads, and
an installation swaps them page by page over a scratch area. `single`: one slot runs and is rewritten in
place from a staging area; there is no way back to the image before. With a `staging_size` of its own that area
is too small for an image: it takes deltas, which rewrite the one slot in place.

Behind the slots a device with several components has two banks for each of the others: one holds the image that is
installed there, the other takes downloads.

The geometry, in the first page and once more in the second, holds the sizes that the file was made with,
so that a later start needs no flags.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum

PAGE_SIZE = 4096
SLOT_SIZE = 1 << 20
WRITE_SIZE = 8
MANIFEST_LIMIT = 8192  # bytes of an envelope
MIN_PAGE_SIZE = 256  # the header of a slot has to fit into one
WRITE_SIZES = (1, 2, 4, 8, 16)

_MAGIC = b"LWM2MDEV"
_LAYOUT_VERSION = 2
_STAGED_VERSION = 3
_COMPONENTS_VERSION = 4
_GEOMETRY = struct.Struct("<8sHBBII")  # magic, version, kind, write size, page size, slot size
_STAGED = struct.Struct("<8sHBBIII")  # the same, and the size of the staging area
_AREA = struct.Struct("<II")  # behind it with version 4, for each component: slot size, tag of the name
MAX_COMPONENTS = 15  # beside the main one; their geometry has to fit into the smallest page
_CRC = struct.Struct("<I")
_TWIN_COPY = 1024  # bytes of one copy of a state record
_FACTORY_COPY = 64
_MANIFEST_HEADER = 64
_STRETCH = 256  # bytes that are worth a progress mark of their own
_SCRATCH_PAGES = 4
_SEARCH_STEP = 64


class LayoutKind(StrEnum):
    """How an image gets to where it runs."""

    AB = "ab"
    SWAP = "swap"
    SINGLE = "single"


_KINDS = (LayoutKind.AB, LayoutKind.SWAP, LayoutKind.SINGLE)
_NAMES = {
    LayoutKind.AB: ("A", "B"),
    LayoutKind.SWAP: ("primary", "secondary"),
    LayoutKind.SINGLE: ("main", "staging"),
}


@dataclass(frozen=True)
class Region:
    """A range of whole pages: bytes `start` to `start + length`."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.length


@dataclass(frozen=True)
class SlotRegions:
    """A slot: one header page, the envelope of the image, the image."""

    header: Region
    manifest: Region
    image: Region


@dataclass(frozen=True)
class ComponentArea:
    """Room for a component beside the main one: its largest image in bytes, and the checksum of its name."""

    slot_size: int
    tag: int

    @classmethod
    def of(cls, name: str, slot_size: int) -> "ComponentArea":
        """Return the room for a component of this name."""
        return cls(slot_size, zlib.crc32(name.encode()))


@dataclass(frozen=True)
class Layout:
    """Geometry of one device; raises ValueError for bad sizes.

    `slot_size` is the largest image in bytes. `staging_size` is the size of the staging area of a device with one
    slot, that rewrites it by deltas; None: as large as the slot, for whole images.

    `components` are those beside the main one. Slots 0 and 1 are the main component's; component `n`, counted
    from 1 as the instances of object 33629, has slots 2n and 2n + 1 as its banks.
    """

    page_size: int = PAGE_SIZE
    slot_size: int = SLOT_SIZE
    kind: LayoutKind = LayoutKind.AB
    write_size: int = WRITE_SIZE
    staging_size: int | None = None
    components: tuple[ComponentArea, ...] = ()

    def __post_init__(self) -> None:
        if self.page_size < MIN_PAGE_SIZE or self.page_size % _SEARCH_STEP:
            raise ValueError(f"a page has at least {MIN_PAGE_SIZE} bytes and a multiple of {_SEARCH_STEP}")
        if min((self.slot_size, *(area.slot_size for area in self.components))) <= 0:
            raise ValueError("a slot has at least one byte")
        if self.staging_size is not None and self.kind is not LayoutKind.SINGLE:
            raise ValueError("a staging area of its own size belongs to the layout 'single'")
        if self.staging_size is not None and not 0 < self.staging_size <= self.slot_size:
            raise ValueError("a staging area has at least one byte, and at most as many as the slot")
        if self.components and self.staging_size is not None:
            raise ValueError(
                "a staging area of its own size has no room for the images of several components"
            )
        if len(self.components) > MAX_COMPONENTS:
            raise ValueError(f"there are at most {MAX_COMPONENTS} components beside the main one")
        if self.write_size not in WRITE_SIZES:
            raise ValueError(f"a unit of programming has {', '.join(map(str, WRITE_SIZES))} bytes")

    @property
    def runs_in_place(self) -> bool:
        """Say whether only the first slot can run."""
        return self.kind is not LayoutKind.AB

    @property
    def takes_deltas_in_place(self) -> bool:
        """Say whether the slot that runs is rewritten by deltas from the staging area."""
        return self.staging_size is not None

    @property
    def memory_size(self) -> int:
        """Bytes of the whole pages of the first slot's image, in which a delta in place may work."""
        return self._pages(self.slot_size)

    def capacity(self, index: int) -> int:
        """Bytes that the image area of a slot takes."""
        if index > 1:
            return self.components[index // 2 - 1].slot_size
        return self.slot_size if index == 0 or self.staging_size is None else self.staging_size

    @property
    def mark_size(self) -> int:
        """Bytes of one progress mark: whole units."""
        return max(8, self.write_size)

    def slot_name(self, index: int) -> str:
        """The name that users see."""
        if index > 1:
            return f"component {index // 2} bank {'AB'[index % 2]}"
        return _NAMES[self.kind][index]

    @property
    def geometry(self) -> Region:
        """Two pages, each beginning with what `encode_geometry` gives."""
        return Region(0, 2 * self.page_size)

    @property
    def factory(self) -> Region:
        """Two copies of what the factory wrote: the digest of the first image."""
        return self._after(self.geometry, 2 * self._pages(_FACTORY_COPY))

    @property
    def boot(self) -> Region:
        """Two copies of the boot state."""
        return self._after(self.factory, 2 * self._pages(_TWIN_COPY))

    @property
    def update(self) -> Region:
        """Two copies of the update state: of one instance, or of all of them with the plan of installation."""
        instances = len(self.components) + 2 if self.components else 1
        return self._after(self.boot, 2 * self._pages(instances * _TWIN_COPY))

    @property
    def progress(self) -> Region:
        """Marks of stored stretches in the order of their storing, with room for some stored again."""
        largest = max(self.slot_size, *(area.slot_size for area in self.components), 0)
        stretches = largest // _STRETCH + self._pages(largest) // self.page_size
        return self._after(self.update, self.mark_size * (stretches + 64))

    @property
    def journal(self) -> Region:
        """One page that says what is being installed, then a unit for each step; empty for `ab`."""
        if not self.runs_in_place:
            return Region(self.progress.end, 0)
        return self._after(self.progress, self.page_size + self._pages(self.most_steps * self.write_size))

    @property
    def most_steps(self) -> int:
        """Steps of the longest installation."""
        pages = self._length_of(0) // self.page_size
        if self.takes_deltas_in_place:
            return pages + self.slot_pages  # the old image is moved up, then the new one is written
        return pages * (3 if self.kind is LayoutKind.SWAP else 1)

    @property
    def scratch(self) -> Region:
        """Pages that a swap goes over; several, so that not one of them takes all the wear."""
        pages = _SCRATCH_PAGES if self.kind is LayoutKind.SWAP else 0
        return Region(self.journal.end, pages * self.page_size)

    def slot(self, index: int) -> SlotRegions:
        """Slot 0 or 1, or a bank of a component."""
        start = self.scratch.end
        if index > 1:
            start = self.component_factory.end
            start += sum(2 * self._length_of(before) for before in range(2, index - 1, 2))
        header = Region(start + index % 2 * self._length_of(index), self.page_size)
        manifest = self._after(header, MANIFEST_LIMIT + _MANIFEST_HEADER)
        return SlotRegions(header, manifest, self._after(manifest, self.capacity(index)))

    @property
    def component_factory(self) -> Region:
        """Two copies of what the factory wrote of the components: the digests of their first images."""
        digests = _FACTORY_COPY + 32 * len(self.components)
        length = 2 * self._pages(digests) if self.components else 0
        return Region(self.scratch.end + 2 * self._length_of(0), length)

    @property
    def slot_pages(self) -> int:
        """Pages of the largest image."""
        return self._pages(self.slot_size) // self.page_size

    @property
    def size(self) -> int:
        """Bytes of the whole flash."""
        if self.components:
            return self.slot(2 * len(self.components) + 1).image.end
        return self.slot(1).image.end

    def encode_geometry(self) -> bytes:
        """Return what each page of the geometry begins with."""
        sizes = _KINDS.index(self.kind), self.write_size, self.page_size, self.slot_size
        if self.components:
            body = _STAGED.pack(_MAGIC, _COMPONENTS_VERSION, *sizes, self.staging_size or 0)
            body += bytes([len(self.components)])
            body += b"".join(_AREA.pack(area.slot_size, area.tag) for area in self.components)
        elif self.staging_size is None:
            body = _GEOMETRY.pack(_MAGIC, _LAYOUT_VERSION, *sizes)
        else:
            body = _STAGED.pack(_MAGIC, _STAGED_VERSION, *sizes, self.staging_size)
        return body + _CRC.pack(zlib.crc32(body))

    def _length_of(self, index: int) -> int:
        # Where the second slot begins depends on the first one alone, however small a staging area is.
        image = self._pages(self.slot_size if index < 2 else self.capacity(index))
        return self.page_size + self._pages(MANIFEST_LIMIT + _MANIFEST_HEADER) + image

    def _pages(self, length: int) -> int:
        return -(-length // self.page_size) * self.page_size

    def _after(self, region: Region, length: int) -> Region:
        return Region(region.end, self._pages(length))


SEARCHED = 1 << 17
"""Bytes at the beginning of a file that `find_geometry` looks at."""


def find_geometry(data: bytes) -> tuple[Layout | None, bool]:
    """Return the layout that the beginning of a file tells of, and whether its first copy is intact.

    The second copy is looked for where pages may begin; it counts only if it names that page size.
    """
    layout = _decode(data)
    if layout is not None:
        return layout, True
    for place in range(MIN_PAGE_SIZE, min(len(data), SEARCHED), _SEARCH_STEP):
        if data.startswith(_MAGIC, place):
            layout = _decode(data[place : place + MIN_PAGE_SIZE])
            if layout is not None and layout.page_size == place:
                return layout, False
    return None, False


def _decode(data: bytes) -> Layout | None:
    for form, known in (
        (_GEOMETRY, _LAYOUT_VERSION),
        (_STAGED, _STAGED_VERSION),
        (_STAGED, _COMPONENTS_VERSION),
    ):
        end = form.size
        if known == _COMPONENTS_VERSION:
            end += 1 + _AREA.size * (data[end] if end < len(data) else 0)
        checksum = data[end : end + _CRC.size]
        if len(checksum) < _CRC.size or _CRC.unpack(checksum)[0] != zlib.crc32(data[:end]):
            continue
        magic, version, kind, write_size, page_size, slot_size, *staging = form.unpack_from(data)
        if magic != _MAGIC or version != known or kind >= len(_KINDS):
            continue
        areas = _AREA.iter_unpack(data[form.size + 1 : end])
        try:
            components = tuple(ComponentArea(size, tag) for size, tag in areas)
            staged = staging[0] or None if staging else None
            return Layout(page_size, slot_size, _KINDS[kind], write_size, staged, components)
        except ValueError:
            return None
    return None
