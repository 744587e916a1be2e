"""A flash in memory, and a device's firmware parts over it without a network."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cbor2
import pytest

from lwm2m_device.bootloader import Boot, BootLoader
from lwm2m_device.flash import Flash, PowerSupply
from lwm2m_device.judges import Judges, Offer, newer_image
from lwm2m_device.layout import Layout
from lwm2m_device.slots import ImageHeader
from lwm2m_device.updater import Updater
from lwm2m_server.clock import ManualClock
from lwm2m_server.firmware.refusals import RefusalCode, refusal

LAYOUT = Layout(page_size=1024, slot_size=3072)
OLD = b"firmware-version: 1.0.0\n" + b"old image " * 40
NEW = b"firmware-version: 2.0.0\n" + bytes((7 * index) & 0xFF for index in range(2480))


def envelope_for(image: bytes, *, version: str = "2.0.0", sequence: int = 2) -> bytes:
    """A stand-in for a manifest that the stand-in judge below reads."""
    return cbor2.dumps(["/fw/x", hashlib.sha256(image).digest(), len(image), version, sequence])


def judge_envelope(envelope: bytes) -> Offer:
    try:
        source, digest, size, version, sequence = cbor2.loads(envelope)
    except (cbor2.CBORDecodeError, ValueError, TypeError):
        raise refusal(RefusalCode.MALFORMED, "no manifest") from None
    return Offer(f"coap://server{source}", digest, size, version, sequence)


class Bench:
    """One flash file and what is booted on it; `boot` is what a restart does."""

    def __init__(self, file: Path, *, plain: bool = False) -> None:
        self.file = file
        self.layout = LAYOUT
        self.plain = plain
        self.clock = ManualClock()
        self.flash: Flash | None = None

    def open(self, supply: PowerSupply | None = None) -> Flash:
        self.close()
        self.flash = Flash(self.file, size=LAYOUT.size, page_size=LAYOUT.page_size, supply=supply)
        return self.flash

    def close(self) -> None:
        if self.flash is not None:
            self.flash.close()
            self.flash = None

    def program_factory(self) -> None:
        flash = self.open()
        flash.erase(0, LAYOUT.size)
        header = ImageHeader("1.0.0", hashlib.sha256(OLD).digest(), len(OLD), 1)
        BootLoader(flash, LAYOUT).install_factory(OLD, header)

    def boot(self, supply: PowerSupply | None = None) -> tuple[BootLoader, Boot]:
        loader = BootLoader(self.open(supply), LAYOUT)
        return loader, loader.boot()

    def updater(self, loader: BootLoader, boot: Boot) -> Updater:
        assert self.flash is not None
        running = None if boot.image is None else boot.image.version
        judges = Judges(judge_envelope, lambda *_: None, newer_image(running), self.plain)
        return Updater(self.flash, LAYOUT, loader, boot, judges=judges, clock=self.clock)

    def start(self, supply: PowerSupply | None = None) -> Updater:
        """Boot and reconcile, for tests that need no reboot to install."""
        loader, boot = self.boot(supply)
        updater = self.updater(loader, boot)
        updater.reconcile()
        return updater

    def contents(self) -> bytes:
        return self.file.read_bytes()

    def restore(self, contents: bytes) -> None:
        self.close()
        self.file.write_bytes(contents)


@pytest.fixture
def memory_file() -> Iterator[Path]:
    """A file in memory: thousands of flash operations in a test cost no disk."""
    descriptor = os.memfd_create("flash")
    yield Path(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)


@pytest.fixture
def bench(memory_file: Path) -> Iterator[Bench]:
    made = Bench(memory_file)
    made.program_factory()
    yield made
    made.close()


@pytest.fixture
def plain_bench(memory_file: Path) -> Iterator[Bench]:
    made = Bench(memory_file, plain=True)
    made.program_factory()
    yield made
    made.close()


@pytest.fixture
def make_envelope() -> Callable[..., bytes]:
    return envelope_for


@pytest.fixture
def images() -> tuple[bytes, bytes]:
    """The factory's image (1.0.0) and the next one (2.0.0)."""
    return OLD, NEW
