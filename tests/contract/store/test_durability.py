"""What was acknowledged is there after `kill -9`, and only whole things are."""

import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lwm2m_server.store import open_sqlite

CHILD = Path(__file__).with_name("registering_child.py")


@pytest.mark.parametrize("seed", range(6))
async def test_acknowledged_registrations_survive_a_kill(tmp_path, seed):
    path = tmp_path / "test.sqlite3"
    acknowledged: dict[str, int] = {}
    count = random.Random(seed).randrange(1, 1500)
    command = [sys.executable, str(CHILD), str(path), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for number, line in enumerate(child.stdout, 1):
            endpoint, id_ = line.split()
            acknowledged[endpoint] = int(id_.rpartition("-")[2])
            if number == count:
                child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    store = await open_sqlite(path)
    for endpoint, round_ in acknowledged.items():
        device = await store.devices.get(endpoint)
        # the device may have gone on to a registration that was not acknowledged any more
        assert int(device.registration.registration_id.rpartition("-")[2]) >= round_
        assert await store.registrations.find(device.registration.registration_id) == device.registration
        newest = (await store.events.before(endpoint=endpoint, limit=1))[0]
        assert newest.data["registration_id"] == device.registration.registration_id
    await store.close()


async def test_a_commit_waits_for_the_disk(tmp_path):
    path = tmp_path / "test.sqlite3"
    store = await open_sqlite(path)
    read = store.events._database
    assert (await read.read(_pragma("journal_mode")))[0][0] == "wal"
    assert (await read.read(_pragma("synchronous")))[0][0] == 2  # FULL
    assert (await read.read(_pragma("foreign_keys")))[0][0] == 1
    await store.close()


def _pragma(name):
    from sqlalchemy import text

    return text(f"PRAGMA {name}")
