"""Deltas made at once in this process: the tests' time does not wait for another one."""

from collections.abc import Sequence
from pathlib import Path

from lwm2m_server.delta_worker import make
from lwm2m_server.firmware.deltas import Method
from lwm2m_server.services.delta_builder import Built, read_result


async def build_here(base: Path | None, target: Path, methods: Sequence[str], folder: Path) -> list[Built]:
    old = b"" if base is None else base.read_bytes()
    new = target.read_bytes()
    return [read_result(make(Method(method), old, new, folder), folder) for method in methods]
