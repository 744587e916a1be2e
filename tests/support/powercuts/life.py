"""The life of a device from any state of its flash to the end of an update, with its server and its network."""

from dataclasses import dataclass, field

from lwm2m_device.bootloader import Boot, BootLoader
from lwm2m_device.flash import PowerCut, PowerSupply
from lwm2m_device.layout import LayoutKind
from lwm2m_device.machine import Result, State, Trigger
from lwm2m_device.updater import Updater
from lwm2m_server.firmware.refusals import RefusalCode
from powercuts.bench import NEW, OLD, Bench, envelope_for
from powercuts.invariants import Rules, Seen, Sight, check_invariants

BLOCK = 256
_MAX_BOOTS = 40
# A cut alone is never taken for a damaged image, and only a manifest in RAM is lost by it.
_RESULTS = {Result.INITIAL, Result.UPDATED, Result.UPDATE_FAILED, Result.CONNECTION_LOST}


@dataclass
class Life:
    """The server wants the device on 2.0.0. `image_boots` False: the new image never reaches the server.

    `sent` is what travels in place of `new`. `recovering`: at first there is no image that could run.
    """

    bench: Bench
    image_boots: bool = True
    seen: Seen = field(default_factory=Seen)
    old: bytes = OLD
    new: bytes = NEW
    block: int = BLOCK
    fetched: int = 0
    sent: bytes = b""
    recovering: bool = False

    def run(self, supply: PowerSupply) -> str:
        """Live until the update has ended; return `updated`, `reverted` or `cut`."""
        try:
            for _ in range(_MAX_BOOTS):
                ended = self._one_boot(supply)
                if ended:
                    return ended
        except PowerCut:
            return "cut"
        raise AssertionError(f"the update does not end: {_MAX_BOOTS} boots")

    def _one_boot(self, supply: PowerSupply) -> str | None:
        loader, boot = self.bench.boot(supply)
        self._check(loader, boot)
        updater = self.bench.updater(loader, boot)
        _, install = updater.reconcile()
        assert updater.state.result in _RESULTS
        if install:
            return None
        if boot.trial:
            assert updater.state.state is State.UPDATING
            if not self.image_boots:
                return None
            updater.confirm()
        lost = updater.state.code == RefusalCode.STATE_DAMAGED
        if boot.image is not None and boot.image.version == "2.0.0":
            # The server's view, from the objects, is the device's: the update is over and the version is new.
            # Whose record of it was damaged says so; the version is evidence enough.
            wanted = Result.UPDATE_FAILED if lost else Result.UPDATED
            assert (updater.state.state, updater.state.result) == (State.IDLE, wanted)
            return "updated"
        if updater.state.result is Result.UPDATE_FAILED and not lost:
            assert updater.state.state is State.IDLE
            assert not self.image_boots
            return "reverted"
        self._serve(updater)
        return None

    def _serve(self, updater: Updater) -> None:
        """What server and network do: offer, deliver from where the device is, order the installation."""
        if updater.state.state is State.IDLE:
            assert updater.request(Trigger.PACKAGE) == 68
            updater.accept_envelope(envelope_for(self.new))
        if updater.state.state is State.DOWNLOADING:
            updater.expect(b"etag")
            sent = self.sent or self.new
            while updater.offset < len(sent):
                end = updater.offset - updater.offset % self.block + self.block
                block = sent[updater.offset : end]
                updater.store(block)
                self.fetched += len(block)
            updater.finish()
        assert updater.request(Trigger.UPDATE) == 68
        updater.install()

    def _check(self, loader: BootLoader, boot: Boot) -> None:
        image = boot.image
        content = None if boot.slot is None or image is None else loader.slots[boot.slot].read(0, image.size)
        sight = Sight(
            content,
            "" if image is None else image.version,
            b"" if image is None else image.digest,
            boot.trial,
            boot.slot is not None and loader.slots[boot.slot].is_confirmed(),
            loader.floor,
        )
        single = self.bench.layout.kind is LayoutKind.SINGLE
        may_recover = self.recovering or (single and not self.image_boots)
        rules = Rules({"1.0.0": self.old, "2.0.0": self.new}, may_recover=may_recover)
        self.seen = check_invariants(self.seen, sight, rules)
