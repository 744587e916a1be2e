"""Deltas in place on the command line: made offline, named in the manifest, explained for what a device runs."""

import hashlib
import json
import random

import pytest

OLD = b"firmware-version: 1.0.0\n" + random.Random(1).randbytes(9000)
OLDER = b"firmware-version: 0.9.0\n" + random.Random(2).randbytes(7000)
NEW = b"firmware-version: 2.0.0\n" + OLD[24:4000] + b"changed" + OLD[4000:]
FLAGS = ["--vendor", "acme.example", "--class", "meter-v2", "--sequence", "8"]
IN_PLACE = [
    "--in-place-from",
    "old.bin",
    "--in-place-from",
    "older.bin",
    "--slot-size",
    "16500",
    "--segment-size",
    "1024",
]


@pytest.fixture(autouse=True)
def _files(tmp_path) -> None:
    for name, content in (("old", OLD), ("older", OLDER), ("new", NEW)):
        (tmp_path / f"{name}.bin").write_bytes(content)


def shown(lwm2m, *arguments: str) -> dict:
    result = lwm2m("manifest", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fetched(lwm2m, held: bytes, *flags: str) -> list[str]:
    found = shown(
        lwm2m,
        "lint",
        "new.bin.suit",
        *FLAGS[:4],
        "--component",
        "00=1.0.0",
        "--installed",
        f"00={digest(held)}",
        *flags,
    )
    assert found["accepted"]
    return found["fetched"]


def test_the_deltas_are_written_beside_the_manifest_that_names_them(lwm2m, tmp_path) -> None:
    made = shown(lwm2m, "create", "new.bin", *FLAGS, *IN_PLACE)
    main, staged = made["components"]
    assert main["digests"] == [digest(NEW)]
    assert staged["component"] == "00/in-place"
    for named, base in zip(main["deltas"], (OLD, OLDER), strict=True):
        content = (tmp_path / f"new.bin.from-{digest(base)[:8]}.delta").read_bytes()
        assert (named["base"], named["base_size"]) == (digest(base), len(base))
        assert (named["digest"], named["size"]) == (digest(content), len(content))
        assert (named["memory"], named["segment"]) == (16384, 1024)
        assert named["uri"] == f"/fw/{digest(content)}"
    assert main["deltas"][0]["size"] < len(NEW) / 4


def test_lint_takes_the_branch_of_what_the_device_runs_and_can(lwm2m) -> None:
    made = shown(lwm2m, "create", "new.bin", *FLAGS, *IN_PLACE)
    one, two = (delta["uri"] for delta in made["components"][0]["deltas"])
    whole = f"/fw/{digest(NEW)}"
    assert fetched(lwm2m, OLD, "--in-place", "00=16384/1024") == [one]
    assert fetched(lwm2m, OLDER, "--in-place", "00=65536/512") == [two]
    assert fetched(lwm2m, b"another", "--in-place", "00=16384/1024") == [whole]
    assert fetched(lwm2m, OLD) == [whole]
    assert fetched(lwm2m, OLD, "--in-place", "00=16384/2048") == [whole]
    told = lwm2m(
        "manifest",
        "lint",
        "new.bin.suit",
        *FLAGS[:4],
        "--installed",
        f"00={digest(OLD)}",
        "--in-place",
        "00=16384/1024",
    )
    assert f"image-match {digest(OLD)[:16]}" in told.stdout
    assert "apply-delta from 00/in-place" in told.stdout


def test_show_tells_each_delta_by_its_base(lwm2m, tmp_path) -> None:
    shown(lwm2m, "create", "new.bin", *FLAGS, *IN_PLACE)
    told = lwm2m("manifest", "show", "new.bin.suit").stdout
    assert f"delta from {digest(OLD)[:16]}" in told
    assert "for a slot of 16384 bytes in segments of 1024" in told
    assert "00/in-place:" not in told


def test_yaml_says_the_same(lwm2m, tmp_path) -> None:
    from_flags = shown(lwm2m, "create", "new.bin", *FLAGS, *IN_PLACE)
    plan = """
vendor: acme.example
class: meter-v2
sequence: 8
components:
  - image: new.bin
    in_place: {from: [old.bin, older.bin], slot_size: 16500, segment_size: 1024}
"""
    (tmp_path / "update.yaml").write_text(plan)
    from_file = shown(lwm2m, "create", "--from", "update.yaml")
    assert from_file["digest"] == from_flags["digest"]


def test_a_manifest_with_deltas_is_signed_and_its_files_verified(lwm2m, tmp_path) -> None:
    shown(lwm2m, "create", "new.bin", *FLAGS, *IN_PLACE)
    assert lwm2m("keys", "new", "author.pem").exit_code == 0
    shown(lwm2m, "sign", "new.bin.suit", "--key", "author.pem")
    delta = f"new.bin.from-{digest(OLD)[:8]}.delta"
    check = ("verify", "new.bin.suit", "--key", "author.pem.pub", "--image", "new.bin", "--image", delta)
    assert shown(lwm2m, *check)["valid"]
    (tmp_path / delta).write_bytes(b"another")
    assert lwm2m("manifest", *check).exit_code != 0


@pytest.mark.parametrize(
    "flags",
    [
        ["--in-place-from", "old.bin"],
        ["--slot-size", "16384"],
        ["--in-place-from", "old.bin", "--slot-size", "4096"],
        ["--in-place-from", "old.bin", "--slot-size", "16384", "--segment-size", "0"],
        ["--in-place-from", "new.bin", "--slot-size", "16384"],
        ["--in-place-from", "old.bin", "--in-place-from", "old.bin", "--slot-size", "16384"],
        ["--in-place-from", "gone.bin", "--slot-size", "16384"],
    ],
)
def test_bad_input_names_the_field_and_leaves_nothing(lwm2m, tmp_path, flags) -> None:
    before = sorted(tmp_path.iterdir())
    result = lwm2m("manifest", "create", "new.bin", *FLAGS, *flags)
    assert result.exit_code == 2
    assert "in_place" in result.stderr or "segment-size" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("room", ["16384", "16384/0", "a/b", "/"])
def test_a_room_that_is_none_is_told(lwm2m, room) -> None:
    shown(lwm2m, "create", "new.bin", *FLAGS, *IN_PLACE)
    result = lwm2m("manifest", "lint", "new.bin.suit", *FLAGS[:4], "--in-place", f"00={room}")
    assert result.exit_code == 2
    assert "in-place" in result.stderr
