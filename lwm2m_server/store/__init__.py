"""The store: ports, records, and their implementations over SQLAlchemy and in memory."""
