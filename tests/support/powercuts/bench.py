"""One flash file and what is booted on it, with stand-ins for manifests."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import cbor2

from lwm2m_device.bootloader import Boot, BootLoader
from lwm2m_device.flash import Flash, PowerSupply
from lwm2m_device.judges import Judges, Offer, newer_image
from lwm2m_device.layout import Layout
from lwm2m_device.slots import ImageHeader
from lwm2m_device.updater import Updater
from lwm2m_server.clock import ManualClock
from lwm2m_server.firmware.refusals import Refusal, RefusalCode, refusal

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

    def __init__(self, file: Path, *, plain: bool = False, layout: Layout = LAYOUT) -> None:
        self.file = file
        self.layout = layout
        self.plain = plain
        self.clock = ManualClock()
        self.flash: Flash | None = None
        self.judge: Callable[[bytes], Offer] = judge_envelope

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

    def program_factory(self, image: bytes = OLD) -> None:
        flash = self.open()
        flash.erase(0, self.layout.size)
        flash.write(0, self.layout.encode_geometry())
        header = ImageHeader("1.0.0", hashlib.sha256(image).digest(), len(image), 1)
        self.loader().install_factory(image, header)

    def loader(self) -> BootLoader:
        assert self.flash is not None
        return BootLoader(self.flash, self.layout, authorise=self.authorise)

    def authorise(self, envelope: bytes | None, header: ImageHeader) -> bool:
        """As `authoriser` of the device, with the stand-in manifest."""
        if self.plain:
            return True
        try:
            offer = judge_envelope(envelope or b"")
        except Refusal:
            return False
        return (offer.digest, offer.size, offer.version, offer.sequence) == (
            header.digest,
            header.size,
            header.version,
            header.sequence,
        )

    def boot(self, supply: PowerSupply | None = None) -> tuple[BootLoader, Boot]:
        self.open(supply)
        loader = self.loader()
        return loader, loader.boot()

    def updater(self, loader: BootLoader, boot: Boot) -> Updater:
        assert self.flash is not None
        running = None if boot.image is None else boot.image.version
        judges = Judges(self.judge, lambda *_: None, newer_image(running), self.plain)
        return Updater(self.flash, self.layout, loader, boot, judges=judges, clock=self.clock)

    def start(self, supply: PowerSupply | None = None) -> Updater:
        """Boot and reconcile, for tests that need no reboot to install."""
        loader, boot = self.boot(supply)
        updater = self.updater(loader, boot)
        updater.reconcile()
        return updater

    def contents(self) -> bytes:
        return self.file.read_bytes()

    def cells(self) -> bytes:
        """A digest of the flash's cells, without their wear."""
        return hashlib.sha256(self.contents()[: self.layout.size]).digest()

    def restore(self, contents: bytes) -> None:
        self.close()
        self.file.write_bytes(contents)
