"""Steps from an empty database to the present schema, run by `lwm2m_server.store.migrate`."""
