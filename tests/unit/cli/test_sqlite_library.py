"""SQLite is told to spare its statistics before its first use, and left alone after it."""

import subprocess
import sys

import pytest

_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the library is asked on Linux alone")


def _spared(before):
    script = (
        f"{before}\n"
        "from lwm2m_server.cli.sqlite_library import spare_statistics\n"
        "spared = spare_statistics()\n"
        "import sqlite3\n"
        "connection = sqlite3.connect(':memory:')\n"
        "print(spared, connection.execute('SELECT 1 + 1').fetchone()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


@_LINUX
def test_before_its_first_use_sqlite_takes_the_setting():
    assert _spared("") == ["True", "2"]


@_LINUX
def test_a_command_that_serves_gets_there_first():
    assert _spared("import lwm2m_server.cli.serve, lwm2m_server.cli.commands") == ["True", "2"]


def test_a_library_in_use_is_left_alone():
    assert _spared("import sqlite3") == ["False", "2"]
