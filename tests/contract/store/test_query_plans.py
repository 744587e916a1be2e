"""What is asked often is answered by an index, however large the fleet."""

import pytest
from sqlalchemy import event

from lwm2m_server.campaigns.records import DeploymentState
from lwm2m_server.devices.attributes import AttributeType
from lwm2m_server.devices.filter import parse
from lwm2m_server.store import open_sqlite
from lwm2m_server.store.prepared import driver_of
from lwm2m_server.store.records import RegistrationUpdate


@pytest.fixture
async def asked(tmp_path):
    """A store, and a function that returns the plans of what a call asked."""
    store = await open_sqlite(tmp_path / "test.sqlite3")
    database = store.events._database
    statements = []

    def note(statement):
        if statement.startswith(("SELECT", "UPDATE", "WITH", "DELETE")):
            statements.append(statement)

    def watch(raw, _=None):
        raw.set_trace_callback(note)

    for connection in database._connections:
        watch(driver_of(connection))
    event.listen(database._engine, "connect", watch)

    async def plans(call):
        statements.clear()
        await call(store)
        asked_for = list(statements)
        found = []
        with database._engine.connect() as connection:
            for statement in asked_for:
                found += [row[3] for row in driver_of(connection).execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert found
        return found

    yield plans
    await store.close()


UPDATE = RegistrationUpdate(registration_id="r", at=1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.devices.get("d"),
        lambda store: store.devices.get_many(["d", "e"]),
        lambda store: store.registrations.find("r"),
        lambda store: store.registrations.update([UPDATE]),
        lambda store: store.registrations.deregister([("r", None)], now=1.0),
        lambda store: store.registrations.expire(now=1.0),
        lambda store: store.observations.of("d"),
        lambda store: store.deployments.get("c", "d"),
        lambda store: store.deployments.page("c"),
        lambda store: store.deployments.page("c", state=DeploymentState.FAILED, reason="x"),
        lambda store: store.deployments.open_many(["d", "e"]),
        lambda store: store.deployments.of("d"),
        lambda store: store.deployments.active("c"),
        lambda store: store.deployments.due("c", now=1.0, limit=10),
        lambda store: store.deployments.next_retry("c"),
        lambda store: store.deployments.statistics("c"),
        lambda store: store.deployments.progress("c", "d", offset=1, size=1, now=1.0),
        lambda store: store.events.after(5, endpoint="d"),
        lambda store: store.events.before(endpoint="d"),
        lambda store: store.events.after(5, campaign_id="c"),
        lambda store: store.events.after(5),
        lambda store: store.events.last_id(),
        lambda store: store.tokens.by_hash(b"h"),
        lambda store: store.credentials.get("psk:d"),
        lambda store: store.credentials.get_many(["psk:d", "psk:e"]),
        lambda store: store.credentials.page(endpoint="d"),
        lambda store: store.credentials.page(kind="psk", after="psk:d"),
        lambda store: store.credentials.due(now=1.0),
        lambda store: store.authorities.remove("a"),
        lambda store: store.sessions.page(after="1"),
    ],
)
async def test_no_table_is_read_from_end_to_end(asked, call):
    for plan in await asked(call):
        if plan.startswith("SCAN"):
            # a list of keys, the buckets' numbers, or one row; never a table that grows
            assert plan.split()[1] in {"anon_1", "buckets", "CONSTANT"}, plan


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.deployments.due("c", now=1.0, limit=10),
        lambda store: store.deployments.page("c"),
        lambda store: store.deployments.page("c", state=DeploymentState.FAILED, reason="x"),
        lambda store: store.registrations.expire(now=1.0),
        lambda store: store.deployments.statistics("c"),
        lambda store: store.events.after(5, campaign_id="c"),
    ],
)
async def test_pages_and_counts_need_no_sorting(asked, call):
    assert not [plan for plan in await asked(call) if "TEMP B-TREE" in plan]


async def test_statistics_read_the_index_alone(asked):
    (plan,) = await asked(lambda store: store.deployments.statistics("c"))
    assert "USING COVERING INDEX" in plan


async def test_an_operators_attribute_is_looked_up_by_index(asked):
    tree = parse('region = "eu" and ring > 2', {"region": AttributeType.TEXT, "ring": AttributeType.NUMBER})
    plans = await asked(lambda store: store.devices.count(filter=tree, now=0.0))
    assert not [plan for plan in plans if plan.startswith("SCAN device_attributes")]
