"""Brings an image from the slot that takes downloads to the slot that runs, for layouts with one that runs.

`swap` exchanges the two slots page by page over scratch pages, and does the same again to go back.
`single` copies the staged image over the running one, or rewrites that one by a staged delta (`inplace`). All are
plans of the journal.
"""

from enum import IntEnum

from lwm2m_device.flash import Flash
from lwm2m_device.inplace import InPlaceDelta
from lwm2m_device.journal import Journal, Plan, Step
from lwm2m_device.layout import Layout, LayoutKind
from lwm2m_device.slots import Slot
from lwm2m_server.firmware.deltas import PatchError


class PlanKind(IntEnum):
    """What a plan of the journal does."""

    INSTALL = 1
    REVERT = 2
    DELTA = 3


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
        """Do all of an order, or what is left of it; `floor` is kept with the plan. Raises as `finish`."""
        plan = self.plan
        if plan is None or plan.serial != serial:
            if kind is PlanKind.INSTALL and self._slots[1].delta() is not None:
                kind = PlanKind.DELTA
            envelope, image = self._extent(kind)
            steps = len(self._steps(kind, envelope, image))
            self._journal.begin(Plan(kind, steps, serial, envelope, image, floor))
        self.finish()

    def finish(self) -> None:
        """Do the rest of a plan that is under way, whoever ordered it.

        Raises PatchError when the staged delta was damaged after it had been proven: neither image is left.
        """
        plan = self.plan
        if plan is not None and self._journal.is_open():
            self._journal.run(self._steps(plan.kind, plan.envelope_pages, plan.image_pages))

    def abandon(self) -> None:
        """Forget the plan that can't be finished."""
        self._journal.forget()

    def result(self) -> bytes:
        """Return the SHA-256 of what the staged delta makes of the image that runs; raises PatchError."""
        digest, _ = self._delta().result()
        return digest

    def _delta(self) -> InPlaceDelta:
        running, staging = self._slots
        staged = staging.delta()
        if staged is None:
            raise PatchError("There is no delta in the staging area.")
        return InPlaceDelta(self._layout, running, staging, staged.size)

    def _extent(self, kind: int) -> tuple[int, int]:
        if kind == PlanKind.DELTA:
            return self._slots[1].used_pages()[0], self._delta().image_pages
        here, there = (slot.used_pages() for slot in self._slots)
        if not self.swaps:
            return there
        return max(here[0], there[0]), max(here[1], there[1])

    def _steps(self, kind: int, envelope: int, image: int) -> list[Step]:
        if kind == PlanKind.DELTA:
            return self._delta_steps(envelope)
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

    def _delta_steps(self, envelope: int) -> list[Step]:
        """Header and envelope come from the staging area; the image is moved up and written anew."""
        running, staging = self._slots
        header, *there = running.pages(envelope, 0)
        _, *here = staging.pages(envelope, 0)
        copies = [self._copy(source, target) for source, target in zip(here, there, strict=True)]
        start = self._layout.slot(running.index).image.start
        return [Step(header, staging.header_page), *copies, *self._delta().steps(start)]

    def _copy(self, source: int, target: int) -> Step:
        return Step(target, lambda: self._flash.read(source, self._layout.page_size))
