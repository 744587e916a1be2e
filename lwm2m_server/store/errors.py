"""What goes wrong with a database, in words for the one who runs the server."""

from pathlib import Path

from sqlalchemy.exc import DBAPIError

from lwm2m_server.errors import Unavailable

# Result codes of SQLite (https://sqlite.org/rescode.html) by the text that the driver raises with them.
_SQLITE = {
    "database disk image is malformed": (
        "is damaged",
        "restore it from a backup, or try `sqlite3 FILE .recover` on a copy",
    ),
    "file is not a database": ("is not a database", "name another file, or move this one away"),
    "database is locked": (
        "is in use by another process",
        "stop the other server, or give this one its own file",
    ),
    "unable to open database file": ("can't be opened", "check that its folder exists and may be written"),
    "attempt to write a readonly database": ("may not be written", "check its owner and its permissions"),
    "database or disk is full": ("can't grow: the disk is full", "free space; nothing acknowledged is lost"),
    "disk I/O error": ("can't be read or written: the disk reports an error", "check the disk and its mount"),
}


class StoreError(Unavailable):
    """The database can't do its work now; `field` is its file."""

    code = "store"


class SchemaError(StoreError):
    """The database is not of this version of the server, or not of this server at all."""

    code = "store-schema"


def explain(error: Exception, path: Path) -> StoreError:
    """Return the error that a user should see for what the driver raised."""
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    for pattern, (what, hint) in _SQLITE.items():
        if pattern in text:
            return StoreError(
                f"the database {path} {what}", field=str(path), hint=hint.replace("FILE", str(path))
            )
    return StoreError(f"the database {path} failed: {text}", field=str(path), hint="see the server's log")
