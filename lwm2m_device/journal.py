"""The journaled in-place writer: rewrites pages in steps, such that a power cut at any point is made good.

A step gives one page its new content. Its content must be the same again however often it is asked for, as
long as the step itself is not marked as done; the steps before it may have changed anything else. So a
plan for a place that is its own source goes over a scratch page (a swap), or reads only what no later step than
the one before has written (a delta over the only image).

On flash: a page that says which plan is under way, then one unit for each step, programmed when the step
is done. The page is erased first and written last, so what can be read as a plan under way is one.
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout

_HEADER = struct.Struct("<4sHBxIQIIQ")  # magic, form, kind, steps, serial, pages of envelope and image, floor
_MAGIC = b"PLAN"
_FORM = 1
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class Step:
    """One page at address `target` gets what `content` returns (a page's bytes)."""

    target: int
    content: Callable[[], bytes]


@dataclass(frozen=True)
class Plan:
    """What is under way.

    `kind` is a number of whoever makes plans, `serial` tells one order from the next; `envelope_pages` and
    `image_pages` are how much of a slot is concerned: all that is needed to make the same steps again.
    `floor` is the sequence counter at that time, which must outlive the images that are overwritten.
    """

    kind: int
    steps: int
    serial: int
    envelope_pages: int
    image_pages: int
    floor: int


class Journal:
    """The record of one plan."""

    def __init__(self, flash: Flash, layout: Layout) -> None:
        self._flash = flash
        self._region = layout.journal
        self._page_size = layout.page_size

    def plan(self) -> Plan | None:
        """Return the plan that was begun last, or None."""
        if not self._region.length:
            return None
        raw = self._flash.read(self._region.start, _HEADER.size + _CRC.size)
        body = raw[: _HEADER.size]
        magic, form, *values = _HEADER.unpack(body)
        if magic != _MAGIC or form != _FORM or _CRC.unpack(raw[_HEADER.size :])[0] != zlib.crc32(body):
            return None
        return Plan(*values)

    def done(self) -> int:
        """Return how many steps are done. A torn mark counts: it was begun when its step was on flash."""
        unit = self._flash.write_size
        count = 0
        for place in range(self._first_mark, self._region.end, unit):
            if self._flash.is_erased(place, unit):
                break
            count += 1
        return count

    def is_open(self) -> bool:
        """Say whether a plan is under way."""
        plan = self.plan()
        return plan is not None and self.done() < plan.steps

    def begin(self, plan: Plan) -> None:
        """Start a plan over."""
        marks = self._region.length - self._page_size
        for start in (
            self._region.start,
            *range(self._first_mark, self._first_mark + marks, self._page_size),
        ):
            if not self._flash.is_erased(start, self._page_size):
                self._flash.erase(start, self._page_size)
        self._flash.sync()
        body = _HEADER.pack(_MAGIC, _FORM, *astuple(plan))
        self._flash.write(self._region.start, body + _CRC.pack(zlib.crc32(body)))
        self._flash.sync()

    def forget(self) -> None:
        """Leave a plan as it is for good."""
        self._flash.erase(self._region.start, self._page_size)
        self._flash.sync()

    def run(self, steps: Sequence[Step]) -> None:
        """Do what is left of the plan: the page first, then its mark."""
        unit = self._flash.write_size
        for index in range(self.done(), len(steps)):
            step = steps[index]
            content = step.content()
            self._flash.erase(step.target, self._page_size)
            if content.strip(b"\xff"):
                self._flash.write(step.target, content)
            self._flash.sync()
            place = self._first_mark + index * unit
            if self._flash.is_erased(
                place, unit
            ):  # one that has rotted counts as a mark, and can't be written
                self._flash.write(place, bytes(unit))

    @property
    def _first_mark(self) -> int:
        return self._region.start + self._page_size
