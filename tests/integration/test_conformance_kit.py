"""The kit for device developers: what it plays holds for our own device, and what does not hold is told."""

import json
import sys
from pathlib import Path

import pytest

from conformance.kit import write_kit
from conformance.link import block_length
from conformance.play import Client, check, load, missing, play
from lwm2m_server.firmware.cose import VerificationKey
from lwm2m_server.firmware.envelope import verify

COMMAND = (
    f"{sys.executable} -m lwm2m_device run --server {{server}} --endpoint {{endpoint}} --flash {{state}}"
    " --vendor {vendor} --class {class} --trust {trust} --initial-version {version} --ack-timeout 0.5"
)
KEYS = " --psk-identity {identity} --psk-key {key} --handshake-timeout 0.5"
FLAGS = {
    "cut-power": "--cut-power-at {operation} --seed {seed}",
    "one-slot": "--slot-size {slot} --staging-size {staging} --page-size {page} --initial-image {packages}/{image}",
}
GOOD = {"version": "2.0.0", "state": 0, "result": 1}
OLD = {"version": "1.0.0", "state": 0, "result": 0}


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    write_kit(folder, size=8192, datagrams=30, operations=40, seed=1)
    return folder


def scenario(kit: Path, name: str) -> dict:
    return next(each for each in load(kit) if each["id"] == name)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("update-by-pull", "ab"),
        ("refuse-changed", "ab"),
        ("delay-to-device-008", "ab"),
        ("two-power-cuts-at-datagram-020", "swap"),
        ("power-cut-at-operation-025", "single"),
        ("in-place-power-cut-at-operation-040", "single"),
    ],
)
async def test_our_own_device_holds_what_the_kit_asks_for(kit, name, layout):
    client = Client(f"{COMMAND} --layout {layout}", FLAGS, frozenset({"manifest", *FLAGS}))
    verdict = await play(kit, scenario(kit, name), client)
    assert verdict.failures == [], json.dumps(verdict.trace, indent=1) + verdict.log


@pytest.mark.parametrize("name", ["changed-etag", "lose-to-server-003", "two-power-cuts-at-datagram-020"])
async def test_our_own_device_holds_it_over_coaps_too(kit, name):
    client = Client(COMMAND + KEYS, FLAGS, frozenset({"manifest", *FLAGS}), secure=True)
    verdict = await play(kit, scenario(kit, name), client)
    assert verdict.failures == [], json.dumps(verdict.trace, indent=1) + verdict.log
    assert {"handshake": "psk:conformance", "known": True} in verdict.trace
    if name == "changed-etag":
        assert any("served" in each for each in verdict.trace)


async def test_a_client_with_another_key_gets_nowhere_over_coaps(kit):
    found = scenario(kit, "update-by-push") | {"within": 5}
    other = COMMAND + KEYS.replace("{key}", "00" * 16)
    verdict = await play(kit, found, Client(other, secure=True))
    assert "the device never registered and answered" in verdict.failures


async def test_a_device_that_takes_a_foreign_manifest_is_found_out(kit):
    """The device is of the other class, so it is right by its own lights, and wrong by the kit's."""
    client = Client(COMMAND.replace("{class}", "other"))
    verdict = await play(kit, scenario(kit, "refuse-foreign-class"), client)
    assert "at the end version is 2.0.0, not 1.0.0" in verdict.failures
    assert any("showed version 2.0.0" in each for each in verdict.failures)


async def test_a_client_that_does_not_start_is_told(kit):
    found = scenario(kit, "update-by-push") | {"within": 20}
    verdict = await play(kit, found, Client(f"{sys.executable} -c pass"))
    assert "the device never registered and answered" in verdict.failures


def test_a_kit_holds_genuine_packages_and_no_private_key(kit):
    key = VerificationKey.from_pem((kit / "trust.pem").read_bytes(), field="trust")
    packages = kit / "packages"
    assert verify((packages / "genuine.suit").read_bytes(), [key]).facts.version == "2.0.0"
    assert not any(b"PRIVATE" in file.read_bytes() for file in kit.rglob("*") if file.is_file())
    for name in {
        rule["send"]["package"]
        for each in load(kit)
        for rule in each["server"]
        if "send" in rule and "package" in rule["send"]
    }:
        assert (packages / name).is_file()


def test_scenarios_that_the_client_can_not_play_say_what_it_lacks(kit):
    assert missing(scenario(kit, "revert"), Client("")) == {"bad-boot"}
    assert missing(scenario(kit, "update-by-push"), Client("")) == set()


@pytest.mark.parametrize(
    ("seen", "more", "failure"),
    [
        ([OLD, GOOD], {}, ""),
        ([], {}, "never registered"),
        ([OLD], {}, "at the end version is 1.0.0"),
        ([OLD, GOOD | {"state": 3}], {}, "at the end state is 3"),
        ([OLD, OLD | {"version": "1.5.0"}, GOOD], {}, "showed version 1.5.0"),
        ([OLD, GOOD, OLD, GOOD], {}, "went back"),
        ([OLD, GOOD], {"image_bytes": 8192 + 4096 + 1024}, ""),
        ([OLD, GOOD], {"image_bytes": 8192 + 4096 + 1025}, "more than a page again"),
        ([OLD, GOOD], {"image_bytes": 8193, "cuts": 0}, "more than a page again"),
        ([OLD, GOOD], {"image_bytes": None}, ""),
    ],
)
def test_each_thing_that_must_hold_is_checked(kit, seen, more, failure):
    given = {"image_bytes": 8192, "cuts": 1, **more}
    failures = check(
        scenario(kit, "power-cut-at-datagram-010"),
        [{"seen": each} for each in seen],
        given["image_bytes"],
        given["cuts"],
        8192,
    )
    assert bool(failures) == bool(failure)
    assert failure in "".join(failures)


@pytest.mark.parametrize(
    ("datagram", "length"),
    [
        (bytes.fromhex("60450001") + b"", 0),
        # 2.05, token of 1, ETag (4) of 2 bytes, Block2 (23) of 1 byte, payload
        (bytes.fromhex("61450001aa42bbccd106") + b"\x0a" + b"\xff12345", 5),
        (bytes.fromhex("61450001aa") + b"\xff12345", 0),
        (bytes.fromhex("61440001aa42bbccd106") + b"\x0a" + b"\xff12345", 0),
        (b"", 0),
    ],
)
def test_blocks_are_recognised_on_the_wire(datagram, length):
    assert block_length(datagram) == length
