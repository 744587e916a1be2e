"""Settings of the SQLite library as a whole, which count for the process and only before its first use."""

import ctypes
import importlib.util
import sys

_CONFIG_MEMSTATUS = 9


def spare_statistics() -> bool:
    """Let SQLite not count its memory, which nobody reads and which takes a lock at every allocation.

    Returns whether it does. SQLite's makers recommend it (sqlite.org/compile.html). Where the library is in use
    already, or is not one that can be asked, everything stays as it was. The locks of connections stay in any case:
    an object of the driver may be freed by another thread than its connection's.
    """
    if sys.platform != "linux" or "_sqlite3" in sys.modules:
        return False
    module = importlib.util.find_spec("_sqlite3")
    if module is None or module.origin is None:
        return False
    try:
        # Found through the driver's own module: that is the library that it uses.
        config = ctypes.CDLL(module.origin).sqlite3_config
    except (OSError, AttributeError):
        return False
    # 0, or an error, after which nothing has changed.
    return bool(config(_CONFIG_MEMSTATUS, ctypes.c_int(0)) == 0)
