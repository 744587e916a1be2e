"""A server in memory for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memory import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.start()
    yield world
    await world.close()
