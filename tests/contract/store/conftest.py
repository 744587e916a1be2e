"""Every contract test runs over each implementation of the ports."""

import pytest

from lwm2m_server.store import open_sqlite
from lwm2m_server.store.memory import MemoryStore


@pytest.fixture(params=["memory", "sqlite"])
async def store(request, tmp_path):
    opened = MemoryStore() if request.param == "memory" else await open_sqlite(tmp_path / "test.sqlite3")
    yield opened
    await opened.close()
