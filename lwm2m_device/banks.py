"""Where the images of the components lie: for each one that which is installed, and the one that takes downloads.

The main component's are the slots of the boot loader. The others have two banks each; which of them holds the
installed image stands in the update record. Its image is kept, so that an update can be taken back.
"""

from collections.abc import Callable

from lwm2m_device.bootloader import Authorise, Boot, BootLoader
from lwm2m_device.component_judge import Installed
from lwm2m_device.component_state import Bank
from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout
from lwm2m_device.records import TwinRecord
from lwm2m_device.slots import ImageHeader, Slot

_FACTORY_FORM = 1
_DIGEST = 32


class Banks:
    """The images of all components by instance. `banks` gives what the record says of them now.

    `authorise` has one judge for each component beside the main one.
    """

    def __init__(
        self,
        flash: Flash,
        layout: Layout,
        loader: BootLoader,
        boot: Boot,
        *,
        authorise: tuple[Authorise, ...],
        banks: Callable[[], tuple[Bank, ...]],
    ) -> None:
        self._loader = loader
        self._boot = boot
        self._authorise = authorise
        self._banks = banks
        self._download = loader.download_slot(boot)
        self._slots = component_slots(flash, layout)
        digests = _factory_record(flash, layout).load() or b"" if self._slots else b""
        self._factory = [digests[start : start + _DIGEST] for start in range(0, len(digests), _DIGEST)]

    def download(self, instance: int) -> Slot:
        """Return the slot that takes downloads."""
        if instance == 0:
            return self._download
        return self._slots[instance - 1][1 - self.installed_bank(instance)]

    def kept(self, instance: int) -> Slot:
        """Return the bank of a component beside the main one that holds the installed image."""
        return self._slots[instance - 1][self.installed_bank(instance)]

    def source(self, instance: int) -> Slot | None:
        """Return the slot of the image that is installed; None when none is."""
        if instance == 0:
            return None if self._boot.slot is None else self._loader.slots[self._boot.slot]
        return self.kept(instance)

    def installed(self, instance: int) -> Installed:
        """Return what is installed in an instance."""
        if instance == 0:
            return Installed(self._boot.image)
        bank = self._banks()[instance - 1]
        return Installed(self.kept(instance).header(), bank.lost)

    def all_installed(self) -> tuple[Installed, ...]:
        """Return what is installed in all instances."""
        return tuple(self.installed(instance) for instance in range(len(self._slots) + 1))

    def installed_bank(self, instance: int) -> int:
        """Return the bank that holds the installed image.

        A record that rot set back to an older copy is found out: a confirmed image of a higher sequence number
        was installed later.
        """
        stored = self._banks()[instance - 1].installed
        headers = [slot.header() for slot in self._slots[instance - 1]]
        here, there = headers[stored], headers[1 - stored]
        if there is None or not self._slots[instance - 1][1 - stored].is_confirmed():
            return stored
        newer = here is None or there.sequence > here.sequence
        return 1 - stored if newer else stored

    def survey(self, instance: int) -> tuple[int, bool]:
        """Return which bank holds the image confirmed last, and whether the other has one that never was.

        For a record that was lost.
        """
        slots = self._slots[instance - 1]
        headers = [slot.header() for slot in slots]

        def rank(bank: int) -> tuple[bool, int, bool]:
            header = headers[bank]
            confirmed = header is not None and slots[bank].is_confirmed()
            return confirmed, -1 if header is None else header.sequence, bank == 0

        best = max((0, 1), key=rank)
        return best, headers[1 - best] is not None and not slots[1 - best].is_confirmed()

    @property
    def floor(self) -> int:
        """The highest sequence number of what is installed beside the main component; 0 when there is nothing."""
        images = [self.installed(instance).image for instance in range(1, len(self._slots) + 1)]
        return max((image.sequence for image in images if image is not None), default=0)

    def confirm_installed(self) -> None:
        """Mark the installed images: what they say of the sequence number counts without the record too."""
        for instance in range(1, len(self._slots) + 1):
            slot = self.kept(instance)
            if slot.header() is not None:
                slot.mark_confirmed()

    def is_proven(self, instance: int, slot: Slot) -> bool:
        """Say whether a component's image is whole, and the factory's or one that a trusted key has signed."""
        header = slot.header()
        if header is None or not slot.is_intact():
            return False
        number = instance - 1
        if number < len(self._factory) and header.digest == self._factory[number]:
            return True
        return self._authorise[number](slot.envelope.load(), header)


def component_slots(flash: Flash, layout: Layout) -> tuple[tuple[Slot, Slot], ...]:
    """Return both banks of each component beside the main one."""
    return tuple(
        (Slot(flash, layout, 2 * number), Slot(flash, layout, 2 * number + 1))
        for number in range(1, len(layout.components) + 1)
    )


def program_components(flash: Flash, layout: Layout, images: tuple[tuple[bytes, ImageHeader], ...]) -> None:
    """Put the first images into the first banks, as the factory does, and their digests into its record."""
    if not images:
        return
    record = _factory_record(flash, layout)
    record.load()
    for _ in range(2):  # into both copies: it never changes again, so one must not be missed
        record.store(b"".join(header.digest for _, header in images))
    for (first, second), (image, header) in zip(component_slots(flash, layout), images, strict=True):
        second.drop()
        first.drop()
        for page in range(-(-len(image) // first.page_size)):
            first.erase_page(page)
            first.write(page * first.page_size, image[page * first.page_size : (page + 1) * first.page_size])
        first.seal(header)
        first.mark_confirmed()


def _factory_record(flash: Flash, layout: Layout) -> TwinRecord:
    return TwinRecord(flash, layout.component_factory, version=_FACTORY_FORM)
