"""The store: ports and records, and their implementations over SQLite and in memory.

`open_sqlite(path)` gives the real one; `memory.MemoryStore` is the one for tests; `files.FileStore`
keeps the images.
"""

from lwm2m_server.store.files import FileStore
from lwm2m_server.store.sqlite import open_sqlite

__all__ = ["FileStore", "open_sqlite"]
