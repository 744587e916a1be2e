"""Encrypted images on the device: decrypted as they are written, power cuts included, and refused by name."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from lwm2m_device.bootloader import Boot
from lwm2m_device.flash import Flash, Tear
from lwm2m_device.judges import ManifestJudge, Offer, Payload, authoriser, judges_for
from lwm2m_device.layout import Layout, LayoutKind
from lwm2m_device.machine import Result, State, Trigger
from lwm2m_device.settings import DeviceSettings
from lwm2m_device.slots import ImageHeader
from lwm2m_device.updater import Updater
from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.cose import SigningKey
from lwm2m_server.firmware.description import EncryptedPayload
from lwm2m_server.firmware.encryption import ContentCipher, encryption_info
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.firmware.key_agreement import Agreement
from lwm2m_server.firmware.refusals import Refusal
from powercuts import NEW, OLD, Bench, Explorer, Life, Seen, explore
from powercuts.bench import judge_envelope

KEY = SigningKey.generate()
KEK = os.urandom(16)
CIPHER = ContentCipher(os.urandom(16), bytes(16))
SENT = CIPHER.apply(0, NEW)
INFO = encryption_info(CIPHER.key, [(KEK, b"meters")])
SETTINGS = DeviceSettings(
    endpoint="d",
    server="coap://192.0.2.1",
    flash=Path("unused"),
    vendor="acme.example",
    class_name="meter",
    trust=(KEY.public.pem(),),
    decryption_keys=(KEK,),
)


def envelope(sent: bytes = SENT, image: bytes = NEW, info: bytes = INFO) -> bytes:
    description = ManifestDescription(
        vendor_domain="acme.example",
        class_name="meter",
        version="2.0.0",
        sequence_number=7,
        image_digest=hashlib.sha256(image).digest(),
        image_size=len(image),
        image_uri="/fw/sent",
        encrypted=EncryptedPayload(digest=hashlib.sha256(sent).digest(), size=len(sent), info=info),
    )
    return sign(build_manifest(description), KEY)


def offered(settings: DeviceSettings = SETTINGS, package: bytes | None = None) -> Offer:
    boot = Boot(0, ImageHeader("1.0.0", bytes(32), 10, 1), trial=False, notes=())
    return ManifestJudge(settings, boot, lambda: 1, 65536, lambda: 0.0).offer(package or envelope())


@pytest.fixture
def started(bench: Bench) -> Callable[..., Updater]:
    """Boot the bench's flash with the device's own judges, and reconcile."""

    def start(**changes: object) -> Updater:
        loader, boot = bench.boot()
        assert isinstance(bench.flash, Flash)
        settings = replace(SETTINGS, **changes)
        judges = judges_for(settings, boot, lambda: loader.floor, bench.layout.slot_size, bench.clock.now)
        updater = Updater(bench.flash, bench.layout, loader, boot, judges=judges, clock=bench.clock)
        updater.reconcile()
        return updater

    return start


def begin(updater: Updater, package: bytes) -> None:
    updater.request(Trigger.PACKAGE)
    updater.accept_envelope(package)
    updater.expect(b"etag")


def test_what_is_fetched_is_not_what_lies_in_the_slot(started: Callable[..., Updater]) -> None:
    updater = started()
    begin(updater, envelope())
    assert updater.encrypted
    for start in range(0, len(SENT), 100):
        updater.store(SENT[start : start + 100])
    updater.finish()
    assert updater.state.state is State.DOWNLOADED
    assert updater.slot.read(0, len(NEW)) == NEW
    header = updater.slot.header()
    assert header is not None
    assert header.digest == hashlib.sha256(NEW).digest()
    assert authoriser(SETTINGS)(updater.slot.envelope.load(), header)


def test_the_boot_loader_never_starts_the_encrypted_bytes() -> None:
    header = ImageHeader("2.0.0", hashlib.sha256(SENT).digest(), len(SENT), 7)
    assert not authoriser(SETTINGS)(envelope(), header)


@pytest.mark.protection("device", "encrypted-key")
@pytest.mark.parametrize(
    ("keys", "code"), [((), "no-decryption-key"), ((bytes(16), b"x" * 16), "decryption-key")]
)
def test_without_the_right_key_nothing_is_fetched(keys: tuple[bytes, ...], code: str) -> None:
    with pytest.raises(Refusal, match="key meters") as caught:
        offered(replace(SETTINGS, decryption_keys=keys))
    assert (caught.value.code, caught.value.field) == (code, "encryption-info")


def test_of_several_keys_the_right_one_is_found() -> None:
    payload = offered(replace(SETTINGS, decryption_keys=(bytes(16), KEK))).payload
    assert payload is not None
    assert payload.cipher == CIPHER


def test_a_class_with_a_key_pair_of_its_own_decrypts_what_was_encrypted_for_it() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    info = encryption_info(CIPHER.key, [(Agreement.new(private.public_key()), b"meters")])
    payload = offered(replace(SETTINGS, decryption_keys=(KEK, private)), envelope(info=info)).payload
    assert payload is not None
    assert payload.cipher == CIPHER
    with pytest.raises(Refusal, match="key meters") as caught:
        offered(SETTINGS, envelope(info=info))
    assert caught.value.code == "decryption-key"


@pytest.mark.protection("device", "encrypted-bytes")
@pytest.mark.parametrize("at", [0, 1000, len(SENT) - 1])
def test_an_altered_payload_is_refused_before_it_counts_as_downloaded(
    started: Callable[..., Updater], at: int
) -> None:
    updater = started()
    begin(updater, envelope())
    altered = bytearray(SENT)
    altered[at] ^= 1
    updater.store(bytes(altered))
    with pytest.raises(Refusal, match="encrypted image is not the one") as caught:
        updater.finish()
    assert (caught.value.code, caught.value.field) == ("digest-mismatch", "image-digest")
    assert updater.slot.header() is None


@pytest.mark.protection("device", "encrypted-bytes")
def test_a_payload_of_another_image_is_refused_though_it_is_the_one_that_was_signed(
    started: Callable[..., Updater],
) -> None:
    other = CIPHER.apply(0, NEW[::-1])
    updater = started()
    begin(updater, envelope(sent=other))
    updater.store(other)
    with pytest.raises(Refusal, match="decrypted image does not have") as caught:
        updater.finish()
    assert caught.value.code == "digest-mismatch"
    assert updater.slot.header() is None


def test_the_signed_digest_of_the_payload_counts_too(started: Callable[..., Updater]) -> None:
    updater = started()
    begin(updater, envelope(sent=bytes(len(SENT))))
    updater.store(SENT)
    with pytest.raises(Refusal):
        updater.finish()
    assert updater.slot.header() is None


def test_a_download_goes_on_after_a_restart_in_the_middle_of_a_block_of_the_cipher(
    started: Callable[..., Updater],
) -> None:
    updater = started()
    begin(updater, envelope())
    updater.store(SENT[:1300])
    updater = started()
    assert updater.state.state is State.DOWNLOADING
    assert 0 < updater.offset < 1300
    updater.store(SENT[updater.offset : 1777])
    updater.store(SENT[1777:])
    updater.finish()
    assert updater.slot.read(0, len(NEW)) == NEW


def test_a_key_that_is_gone_after_a_restart_ends_the_download_by_name(
    started: Callable[..., Updater],
) -> None:
    updater = started()
    begin(updater, envelope())
    updater.store(SENT[:1500])
    state = started(decryption_keys=()).state
    assert (state.state, state.result, state.code) == (State.IDLE, Result.INTEGRITY, "no-decryption-key")


@pytest.mark.protection("device", "power-cut")
@pytest.mark.parametrize("kind", list(LayoutKind))
@pytest.mark.parametrize("image_boots", [True, False], ids=["confirmed", "reverted"])
def test_an_encrypted_update_survives_a_power_cut_at_every_flash_operation(
    memory_file: Path, kind: LayoutKind, image_boots: bool
) -> None:
    old, new = OLD[:300], NEW[:700]
    sent = CIPHER.apply(0, new)
    payload = Payload(hashlib.sha256(sent).digest(), CIPHER)
    bench = Bench(memory_file, layout=Layout(page_size=256, slot_size=768, kind=kind))
    bench.judge = lambda package: replace(judge_envelope(package), payload=payload)
    bench.program_factory(old)

    def life(seen: Seen) -> Life:
        return Life(bench, image_boots, seen, old=old, new=new, sent=sent, block=72)

    explorer = Explorer(bench, life, "updated" if image_boots else "reverted")
    try:
        moments = explorer.live(explore.State(bench.contents(), Seen()))
        assert len(moments) > 30
        tears = [Tear(share, 5) for share in explore.SHARES]
        for state in explorer.cuts(moments, lambda _: tears):
            if explorer.is_new(state):
                explorer.prove(state)
    finally:
        explorer.close()
        bench.close()
