"""Entry point that Alembic calls: migrates over the connection that it is given, in its transaction."""

from alembic import context

from lwm2m_server.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
