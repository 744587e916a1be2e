"""Where a command finds its server: flags, then the environment, then what a local `lwm2m serve` left behind.

The server writes its address to `api-url` and the first administrator's token to `admin-token`, both in its
data directory. The local token is only ever sent to the local address.
"""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

DEFAULT_URL = "http://127.0.0.1:8080"
DATA_DIR = "lwm2m-data"  # as config.DEFAULT_DATA_DIR, which takes long to import
CONFIG = "lwm2m.toml"
URL_FILE = "api-url"
TOKEN_FILE = "admin-token"  # noqa: S105  a file name


@dataclass(frozen=True, slots=True)
class Target:
    """The server to talk to. `token` may be missing: the server says what it thinks of that."""

    url: str
    token: str | None


def data_dir() -> Path:
    """Return the data directory of a server that is run from here."""
    if named := os.environ.get("LWM2M_DATA_DIR"):
        return Path(named)
    try:
        found = tomllib.loads(Path(CONFIG).read_text(encoding="utf-8")).get("data_dir")
    except (OSError, ValueError):  # `serve` reports what is wrong with it
        found = None
    return Path(found) if isinstance(found, str) else Path(DATA_DIR)


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def find(url: str | None, token: str | None) -> Target:
    """Choose address and token; the arguments already hold flag or environment."""
    folder = data_dir()
    if url is not None:
        return Target(url.rstrip("/"), token)
    local = _read(folder / URL_FILE) or DEFAULT_URL
    return Target(local.rstrip("/"), token or _read(folder / TOKEN_FILE))
