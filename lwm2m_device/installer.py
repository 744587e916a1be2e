"""Brings an image from the slot that takes downloads to the slot that runs, for layouts with one that runs.

`swap` exchanges the two slots page by page over scratch pages, and does the same again to go back.
`single` copies the staged image over the running one. Both are plans of the journal.
"""

from enum import IntEnum

from lwm2m_device.flash import Flash
from lwm2m_device.journal import Journal, Plan, Step
from lwm2m_device.layout import Layout, LayoutKind
from lwm2m_device.slots import Slot


class PlanKind(IntEnum):
    """What a plan of the journal does."""

    INSTALL = 1
    REVERT = 2


class Installer:
    """Begins plans and finishes what a power cut left half done. `serial` tells one order from the next."""

    def __init__(self, flash: Flash, layout: Layout, slots: tuple[Slot, Slot]) -> None:
        self._journal = Journal(flash, layout)
        self._flash = flash
        self._layout = layout
        self._slots = slots

    @property
    def swaps(self) -> bool:
        """Say whether the image before is kept, so that there is a way back."""
        return self._layout.kind is LayoutKind.SWAP

    @property
    def plan(self) -> Plan | None:
        """The plan that was begun last."""
        return self._journal.plan()

    def is_open(self) -> bool:
        """Say whether a plan is half done: what the slots hold makes no sense until `finish`."""
        return self._journal.is_open()

    def perform(self, kind: PlanKind, serial: int, floor: int) -> None:
        """Do all of an order, or what is left of it; `floor` is kept with the plan."""
        plan = self.plan
        if plan is None or plan.serial != serial:
            envelope, image = self._extent()
            steps = len(self._steps(envelope, image))
            self._journal.begin(Plan(kind, steps, serial, envelope, image, floor))
        self.finish()

    def finish(self) -> None:
        """Do the rest of a plan that is under way, whoever ordered it."""
        plan = self.plan
        if plan is not None and self._journal.is_open():
            self._journal.run(self._steps(plan.envelope_pages, plan.image_pages))

    def _extent(self) -> tuple[int, int]:
        here, there = (slot.used_pages() for slot in self._slots)
        if not self.swaps:
            return there
        return max(here[0], there[0]), max(here[1], there[1])

    def _steps(self, envelope: int, image: int) -> list[Step]:
        running, download = (slot.pages(envelope, image) for slot in self._slots)
        pairs = list(zip(running, download, strict=True))
        if not self.swaps:
            return [self._copy(source, target) for target, source in pairs]
        scratch = range(self._layout.scratch.start, self._layout.scratch.end, self._layout.page_size)
        steps: list[Step] = []
        for number, (here, there) in enumerate(pairs):
            between = scratch[number % len(scratch)]
            steps += [self._copy(here, between), self._copy(there, here), self._copy(between, there)]
        return steps

    def _copy(self, source: int, target: int) -> Step:
        return Step(target, lambda: self._flash.read(source, self._layout.page_size))
