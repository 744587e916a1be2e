"""Settings of the SQLite library as a whole, which count for the process and only before its first use."""

import ctypes
import importlib.util
import sys

_CONFIG_MULTITHREAD = 2
_CONFIG_MEMSTATUS = 9


def spare_locks() -> bool:
    """Let SQLite do without the locks that nobody here needs; return whether it does.

    A connection of ours belongs to one thread at a time, so it needs no lock of its own (SQLite's mode
    "multi-thread"), and nobody reads its statistics of memory, which take a lock at every allocation. Without this
    they are a tenth of what a registration costs in SQLite. Where the library is in use already, or is not one that
    can be asked, everything stays as it was: slower, and no less safe.
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
    # Each answers 0 or an error; after an error nothing has changed.
    statistics = config(_CONFIG_MEMSTATUS, ctypes.c_int(0))
    threads = config(_CONFIG_MULTITHREAD)
    return bool(statistics == 0 and threads == 0)
