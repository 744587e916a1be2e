"""One application's flash, and its life with a server from any state of that flash to the end of what is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lwm2m_device.flash import Flash, PowerCut, PowerSupply
from lwm2m_device.judges import Offer, Read, newer_image
from lwm2m_device.layout import Layout
from lwm2m_device.places import Place
from lwm2m_device.software import Application
from lwm2m_device.software_judges import Present
from lwm2m_device.software_machine import Result, Stage, Trigger
from lwm2m_server import versions
from powercuts.bench import judge_envelope

SMALL = Layout(page_size=256, slot_size=768)
_MAX_BOOTS = 40
_STEPS = 12


@dataclass
class StandInJudge:
    """Reads the stand-in manifests of `powercuts.bench`; all of them are for the application `meter`."""

    plain: bool = False

    def offer(self, envelope: bytes, present: Present) -> tuple[str, Offer]:
        assert present.name in ("", "meter")
        return "meter", judge_envelope(envelope)

    def complete(self, *_: object) -> None:
        pass

    def version(self, read: Read, size: int, present: Present) -> str:
        return newer_image(present.software.version if present.software else None)(read, size)


class SoftwareBench:
    """One flash file with one application on it; `start` is what a restart does."""

    def __init__(
        self, file: Path, *, layout: Layout = SMALL, version: str | None = "1.0.0", plain: bool = False
    ) -> None:
        self.file = file
        self.layout = layout
        self.place = Place(0, "meter", version)
        self.judge = StandInJudge(plain)
        self.flash: Flash | None = None

    def open(self, supply: PowerSupply | None = None) -> Flash:
        self.close()
        self.flash = Flash(
            self.file,
            size=self.layout.size,
            page_size=self.layout.page_size,
            write_size=self.layout.write_size,
            supply=supply,
        )
        return self.flash

    def close(self) -> None:
        if self.flash is not None:
            self.flash.close()
            self.flash = None

    def start(self, supply: PowerSupply | None = None) -> Application:
        made = Application(self.open(supply), self.layout, self.place, self.judge)
        made.program_factory()
        made.reconcile()
        return made

    def contents(self) -> bytes:
        return self.file.read_bytes()

    def restore(self, contents: bytes) -> None:
        self.close()
        self.file.write_bytes(contents)


@dataclass(frozen=True)
class Known:
    """What was seen before: the version in place (empty: none), the sequence floor."""

    version: str = ""
    floor: int = 0


@dataclass
class SoftwareLife:
    """The server wants `wanted` in place and running, or with None nothing at all."""

    bench: SoftwareBench
    wanted: str | None
    contents: dict[str, bytes]
    envelope: bytes = b""
    seen: Known = field(default_factory=Known)
    block: int = 256
    fetched: int = 0
    hooks: list[str] = field(default_factory=list)

    def run(self, supply: PowerSupply) -> str:
        """Live until it is so; return `installed`, `removed` or `cut`."""
        try:
            for _ in range(_MAX_BOOTS):
                application = self.bench.start(supply)
                for _ in range(_STEPS):
                    self._check(application)
                    ended = self._step(application)
                    if ended:
                        return ended
        except PowerCut:
            return "cut"
        raise AssertionError("no end")

    def _step(self, application: Application) -> str | None:
        """One thing that server, network or hook does next."""
        stage, wants = application.state.stage, self.wanted
        at_goal = application.version == (wants or "")
        match stage:
            case Stage.INSTALLING:
                self.hooks.append("install")
                application.installed()
            case Stage.UNINSTALLING | Stage.CLEARING:
                self.hooks.append("uninstall")
                application.removed()
            case Stage.STARTING:
                application.started()
            case Stage.DOWNLOADING:
                self._deliver(application)
            case Stage.ACTIVE if at_goal:
                return "installed"
            case Stage.INACTIVE if at_goal:
                assert application.request(Trigger.ACTIVATE) == 68
            case Stage.INITIAL if wants is None and application.software is None:
                return "removed"
            case Stage.INITIAL if wants is not None:
                assert application.request(Trigger.PACKAGE) == 68
                application.accept_envelope(self.envelope)
            case Stage.DELIVERED if wants is not None:
                assert application.request(Trigger.INSTALL) == 68
            case _:
                trigger = Trigger.UNINSTALL if wants is None else Trigger.FOR_UPDATE
                assert application.request(trigger) == 68
        return None

    def _deliver(self, application: Application) -> None:
        package = self.contents[self.wanted or ""]
        application.expect(b"etag")
        while application.offset < len(package):
            end = application.offset - application.offset % self.block + self.block
            piece = package[application.offset : end]
            application.store(piece)
            self.fetched += len(piece)
        application.finish()

    def _check(self, application: Application) -> None:
        """What must hold whatever happened: one whole authorised version, never an older one, until removal."""
        state, software = application.state, application.software
        assert state.result < Result.NO_STORAGE or state.result is Result.CONNECTION_LOST
        assert state.floor >= self.seen.floor, "the sequence number went down"
        version = ""
        if state.place is not None and software is None:
            # the removal has come that far
            assert state.stage in (Stage.UNINSTALLING, Stage.CLEARING)
        elif software is not None:
            assert state.place is not None
            version = software.version
            found = application.slots[state.place].read(0, software.size)
            assert found == self.contents[version], "something is in place that nobody authorised"
        if self.seen.version and self.wanted is not None:
            assert version, "an update lost the software that was in place"
            assert versions.compare(version, self.seen.version) >= 0, "software gave way to an older version"
        self.seen = Known(version, state.floor)
