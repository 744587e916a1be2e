"""Deltas are made by a process with bounded memory and time: what goes beyond is ended and told, nothing else waits."""

import asyncio
import os
import random
import sys
from pathlib import Path

import pytest

from lwm2m_server.services import delta_builder
from lwm2m_server.services.delta_builder import DeltaBuilder

TOO_MUCH = "it would take more memory than is allowed"
OLD = random.Random(1).randbytes(4_000_000)
NEW = b"x" + OLD[:2_000_000] + random.Random(2).randbytes(3_000) + OLD[2_000_000:]


def workers() -> list[int]:
    """Return the processes that make deltas for this one."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            continue
        if parent == os.getpid() and b"delta_worker" in command:
            found.append(int(folder.name))
    return found


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, Path, Path]:
    old, new, folder = tmp_path / "old", tmp_path / "new", tmp_path / "made"
    old.write_bytes(OLD)
    new.write_bytes(NEW)
    folder.mkdir()
    return old, new, folder


@pytest.fixture
def endless(images: tuple[Path, Path, Path]) -> Path:
    """Return a base that nobody ever writes: the process waits for it."""
    pipe = images[0].with_name("pipe")
    os.mkfifo(pipe)
    return pipe


def play(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Let a script stand for the process."""
    program = folder / "delta_worker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(delta_builder.sys, "executable", str(program))


TOLD = '{"method": "lzma", "size": 3, "digest": "abcd", "seconds": 0.1, "memory": 5}'


async def test_a_build_that_takes_too_long_is_ended_and_says_so(images, endless) -> None:
    builder = DeltaBuilder(workers=1, memory=64 << 20, seconds=1.0)
    built = await builder.build(endless, images[1], ["lzma", "bsdiff"], images[2])
    assert [each.error for each in built] == ["it would take more than 1 seconds"] * 2
    assert workers() == []


async def test_what_was_made_before_the_time_was_over_counts(images, monkeypatch, tmp_path) -> None:
    play(monkeypatch, tmp_path, f"echo '{TOLD}'; exec sleep 600")
    builder = DeltaBuilder(workers=1, memory=64 << 20, seconds=1.0)
    first, second = await builder.build(images[0], images[1], ["lzma", "bsdiff"], images[2])
    assert (first.error, first.file, first.size) == ("", images[2] / "lzma", 3)
    assert second.error == "it would take more than 1 seconds"


async def test_cancelling_a_build_ends_its_process(images, endless) -> None:
    builder = DeltaBuilder(workers=1, memory=64 << 20, seconds=600.0)
    task = asyncio.create_task(builder.build(endless, images[1], ["bsdiff"], images[2]))
    while not workers():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert workers() == []


async def test_a_method_that_needs_too_much_memory_fails_alone(images) -> None:
    builder = DeltaBuilder(workers=1, memory=24 << 20, seconds=60.0)
    methods = ["lzma", "bsdiff", "thumb", "hdiffpatch", "detools-heatshrink"]
    built = await builder.build(images[0], images[1], methods, images[2])
    assert [each.method for each in built] == methods
    assert [each.error for each in built] == ["", TOO_MUCH, TOO_MUCH, TOO_MUCH, TOO_MUCH]
    assert built[0].file is not None
    assert built[0].file.stat().st_size == built[0].size > 0
    assert {file.name for file in images[2].iterdir()} == {"lzma"}, "nothing is left of those that failed"


async def test_images_that_do_not_fit_into_the_memory_are_told_too(images) -> None:
    builder = DeltaBuilder(workers=1, memory=1 << 20, seconds=60.0)
    built = await builder.build(images[0], images[1], ["lzma", "bsdiff"], images[2])
    assert [each.error for each in built] == [TOO_MUCH] * 2


@pytest.mark.parametrize(
    "script",
    ["exit 1", "kill -SEGV $$", "echo out of memory", 'echo "{"', f"echo '{TOLD}' | head -c 40; exit 1"],
    ids=["fails", "crashes", "babbles", "no-json", "half-a-line"],
)
async def test_a_process_that_breaks_costs_its_methods_and_nothing_else(
    images, monkeypatch, tmp_path, script: str
) -> None:
    builder = DeltaBuilder(workers=1, memory=64 << 20, seconds=60.0)
    with monkeypatch.context() as broken:
        play(broken, tmp_path, script)
        [built] = await builder.build(images[0], images[1], ["lzma"], images[2])
        assert built.error == "the process that makes deltas failed"
    assert sys.executable == delta_builder.sys.executable
    small = tmp_path / "small"
    small.write_bytes(NEW[:1000])
    [built] = await builder.build(small, small, ["lzma"], images[2])
    assert built.error == "", "the next build has its place"


async def test_no_more_processes_run_than_are_allowed(images, monkeypatch, tmp_path) -> None:
    running = tmp_path / "running"
    play(monkeypatch, tmp_path, f"mkdir {running} || exit 1; rmdir {running}; echo '{TOLD}'")
    builder = DeltaBuilder(workers=1, memory=64 << 20, seconds=60.0)
    built = await asyncio.gather(
        *(builder.build(images[0], images[1], ["lzma"], images[2]) for _ in range(6))
    )
    assert [each[0].error for each in built] == [""] * 6
