"""Whether a database is sound and of this version's schema, without the migration tool: loading that takes a start
longer than all of this.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

MAX_CHECKED = 64 << 20  # bytes; about a tenth of a second of reading
_MIGRATIONS = Path(__file__).parent / "migrations" / "versions"


def newest() -> str:
    """Return the revision of the schema that this version works with: migrations are files like `r0001_name.py`."""
    return max(path.name for path in _MIGRATIONS.glob("r[0-9]*.py"))[1:5]


def is_current(path: Path) -> bool:
    """Return whether the database needs no upgrade; False also when it isn't there or can't be read."""
    try:
        check_file(path)
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except (sqlite3.Error, OSError):
        return False
    return found == [(newest(),)]


def check_file(path: Path) -> None:
    """Find damage now rather than in the middle of the work; of a large file only the schema is read.

    Raises `sqlite3.Error`, `OSError`.
    """
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if path.stat().st_size <= MAX_CHECKED:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError("database disk image is malformed")
