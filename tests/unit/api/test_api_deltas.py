"""`/deltas` and `lwm2m firmware delta`, `savings`."""

import hashlib
import random

import pytest

from lwm2m_server.firmware.deltas import Method, Source, apply
from lwm2m_server.store.delta_ports import Transfer

OLD = b"firmware-version: 1.0.0\n" + random.Random(1).randbytes(4000)
NEW = b"firmware-version: 2.0.0\n" + OLD[24:] + random.Random(2).randbytes(200)
DIGESTS = [hashlib.sha256(image).hexdigest() for image in (OLD, NEW)]


@pytest.fixture
def images(lwm2m, tmp_path) -> None:
    for name, image in (("old.bin", OLD), ("new.bin", NEW)):
        (tmp_path / name).write_bytes(image)
        lwm2m("firmware", "add", name)


def test_methods_are_compared_for_two_images_of_the_server(lwm2m, images) -> None:
    found = lwm2m("firmware", "delta", DIGESTS[0][:12], DIGESTS[1], "--json")
    assert (found["base"], found["target"], found["size"]) == (*DIGESTS, len(NEW))
    assert {delta["method"] for delta in found["deltas"]} == {method.value for method in Method}
    sizes = [delta["size"] for delta in found["deltas"]]
    assert sizes == sorted(sizes)
    assert found["deltas"][0]["share"] == round(sizes[0] / len(NEW), 4)
    table = lwm2m("firmware", "delta", *DIGESTS).stdout
    assert "of the image" in table
    assert "thumb" in table


def test_methods_are_compared_for_two_files_without_a_server(lwm2m, images, tmp_path) -> None:
    found = lwm2m(
        "firmware", "delta", "old.bin", "new.bin", "--slot-size", "16384", "--save", "patches", "--json"
    )
    methods = [delta["method"] for delta in found["deltas"]]
    assert set(methods) == {*(method.value for method in Method), "detools-in-place"}
    out = bytearray()
    patch = (tmp_path / "patches" / "thumb").read_bytes()
    apply(Method.THUMB, Source.of(OLD), Source.of(patch), out.extend, size=len(NEW))
    assert out == NEW


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["old.bin", DIGESTS[1]], 2),
        ([*DIGESTS, "--slot-size", "4096"], 2),
        ([DIGESTS[0], "00" * 32], 3),
        ([DIGESTS[0], "zz"], 2),
    ],
)
def test_what_can_not_be_compared_is_said(lwm2m, images, arguments, code) -> None:
    lwm2m("firmware", "delta", *arguments, code=code)


def test_a_slot_that_is_too_small_fails_that_method_alone(lwm2m, images) -> None:
    found = lwm2m("firmware", "delta", "old.bin", "new.bin", "--slot-size", "4096", "--json")
    failed = [delta for delta in found["deltas"] if delta["state"] == "failed"]
    assert [delta["method"] for delta in failed] == ["detools-in-place"]
    assert "4096" in failed[0]["text"]


def test_savings_are_shown_for_all_a_campaign_and_a_device(lwm2m, bridge) -> None:
    world = bridge.world
    bridge.run(world.register("pump-1"))
    transfer = Transfer(
        campaign_id="c1",
        endpoint="pump-1",
        digest=b"\x01" * 32,
        method="thumb",
        size=100,
        image_size=4000,
        sent=100,
        updated_at=1.0,
        applied=True,
    )
    bridge.run(world.store.deltas.record([transfer]))
    wanted = {
        "updates": 1,
        "deltas": 1,
        "image_bytes": 4000,
        "sent_bytes": 100,
        "saved_bytes": 3900,
    }
    assert lwm2m("firmware", "savings", "--json") == wanted
    assert lwm2m("firmware", "savings", "--device", "pump-1", "--json") == wanted
    assert "97.5" in lwm2m("firmware", "savings").stdout
    lwm2m("firmware", "savings", "--device", "nobody", code=3)
    lwm2m("firmware", "savings", "--campaign", "none", code=3)
