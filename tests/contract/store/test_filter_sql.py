"""SQL and memory decide the same about any device and any filter."""

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, insert, select

from lwm2m_server import versions
from lwm2m_server.devices.attributes import BUILT_IN, AttributeType, clean_facts
from lwm2m_server.devices.filter import Ago, All, And, Not, Operator, Or, Test, matches, parse
from lwm2m_server.devices.filter_tree import LISTS, ORDERING
from lwm2m_server.devices.records import ApplicationFacts, ComponentFacts, Device, Facts, Registration
from lwm2m_server.store.rows import REGISTERED_COLUMNS, applications_text, components_text, registered_row
from lwm2m_server.store.schema import devices, metadata
from lwm2m_server.store.sql_devices import _replace_attributes, replace_applications, replace_components
from lwm2m_server.store.sql_filter import condition

NOW = 1_000_000.0
OWN = {
    "text": AttributeType.TEXT,
    "number": AttributeType.NUMBER,
    "flag": AttributeType.BOOLEAN,
    "version": AttributeType.VERSION,
}
COMPONENTS = ["modem", "00", "a.b-c_d", "board/01", "version", "x.version"]
OF_COMPONENTS = {f"component.{name}.version": AttributeType.VERSION for name in COMPONENTS} | {
    f"component.{name}.digest": AttributeType.IDENTIFIER for name in COMPONENTS
}
APPLICATIONS = ["meter", "a.b-c_d", "x.version"]
OF_APPLICATIONS = {f"software.{name}.version": AttributeType.VERSION for name in APPLICATIONS} | {
    f"software.{name}.active": AttributeType.BOOLEAN for name in APPLICATIONS
}
SERVERS_OWN = {**BUILT_IN, **OF_COMPONENTS, **OF_APPLICATIONS}
# Few values, so that they meet; with everything that means something in a pattern, a quoted text or an order.
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "A",
        "ab",
        "a%",
        "a_",
        "a*",
        "a?",
        "[a]",
        "]",
        "it's",
        'say "x"',
        "\\",
        "ä",
        "😀",
        "1.0",
        "e\u0301",
    ]
)
VERSIONS = st.sampled_from(
    ["1", "1.0", "1.0.0", "1.9", "1.10", "v1.10.0", "1.10-rc1", "1.10-rc.2", "1.0+7", "x", ""]
)
NUMBERS = st.sampled_from([0, 1, -1, 0.5, 2**53, -(2**53), 1e-9])
TIMES = st.sampled_from([NOW, NOW - 60, NOW - 60.5, NOW - 3600, 0.0])
BYTES = st.sampled_from([b"\0" * 16, b"\1" * 16, b"\xff" * 16])
PATTERNS = st.text(st.sampled_from("a*?[]%_ä"), max_size=5).filter(lambda text: text.count("*") <= 4) | TEXTS
VALUES = {
    AttributeType.TEXT: TEXTS,
    AttributeType.VERSION: VERSIONS,
    AttributeType.NUMBER: NUMBERS,
    AttributeType.BOOLEAN: st.booleans(),
    AttributeType.TIME: TIMES | st.sampled_from([Ago(60), Ago(0), Ago(3600)]),
    AttributeType.IDENTIFIER: BYTES.map(bytes.hex),
}
COMPARE = {Operator.EQUAL, Operator.NOT_EQUAL}
MATCH = {Operator.LIKE, Operator.NOT_LIKE, Operator.STARTS_WITH, Operator.NOT_STARTS_WITH}
OPERATORS = {
    AttributeType.TEXT: COMPARE | ORDERING | LISTS | MATCH,
    AttributeType.VERSION: COMPARE | ORDERING | LISTS | MATCH,
    AttributeType.NUMBER: COMPARE | ORDERING | LISTS,
    AttributeType.BOOLEAN: COMPARE | LISTS,
    AttributeType.TIME: ORDERING,
    AttributeType.IDENTIFIER: COMPARE | LISTS,
}


@st.composite
def leaves(draw):
    name = draw(st.sampled_from(sorted({**SERVERS_OWN, **OWN})))
    # a name's type may have been another one when the filter was read
    type_ = draw(st.sampled_from(sorted(OWN.values()))) if name in OWN else SERVERS_OWN[name]
    operator = draw(st.sampled_from(sorted({*OPERATORS[type_], Operator.EXISTS})))
    if operator is Operator.EXISTS:
        return Test(name, type_, operator)
    values = VALUES[type_]
    if operator in MATCH:
        values = PATTERNS
    elif operator in ORDERING and type_ is AttributeType.VERSION:
        values = VERSIONS.filter(lambda text: versions.try_sort_key(text) is not None)
    many = st.lists(values, min_size=1, max_size=3) if operator in LISTS else st.tuples(values)
    return Test(name, type_, operator, tuple(draw(many)))


TREES = st.recursive(
    leaves() | st.just(All()),
    lambda trees: (
        trees.map(Not)
        | st.lists(trees, min_size=2, max_size=3).map(lambda parts: And(tuple(parts)))
        | st.lists(trees, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts)))
    ),
    max_leaves=6,
)
FACTS = st.builds(
    Facts,
    manufacturer=st.none() | TEXTS,
    model=st.none() | TEXTS,
    serial=st.none() | TEXTS,
    hardware_version=st.none() | VERSIONS,
    firmware_version=st.none() | VERSIONS,
    running_digest=st.none() | BYTES,
    vendor_id=st.none() | BYTES,
    class_id=st.none() | BYTES,
    understands_manifests=st.none() | st.booleans(),
    capacity=st.none() | st.integers(0, 2**40),
    sequence=st.none() | st.integers(0, 2**63 - 1),
    components=st.none()
    | st.lists(
        st.builds(
            ComponentFacts,
            instance=st.integers(0, 3),
            name=st.sampled_from(COMPONENTS),
            version=st.none() | VERSIONS,
            digest=st.none() | BYTES,
        ),
        max_size=4,
    ).map(tuple),
    applications=st.none()
    | st.lists(
        st.builds(
            ApplicationFacts,
            instance=st.integers(0, 3),
            name=st.sampled_from(["", *APPLICATIONS]),
            version=st.none() | VERSIONS,
            active=st.none() | st.booleans(),
        ),
        max_size=4,
    ).map(tuple),
).map(clean_facts)
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXTS,
        "number": NUMBERS,
        "flag": st.booleans(),
        "version": VERSIONS.filter(lambda text: versions.try_sort_key(text) is not None),
    },
)


@st.composite
def fleets(draw):
    fleet = []
    for n in range(draw(st.integers(1, 5))):
        name = f"{draw(TEXTS)}{n}"
        registration = Registration(
            registration_id=str(n),
            endpoint=name,
            address=draw(TEXTS),
            registered_at=draw(TIMES),
            last_seen=draw(TIMES),
            expires_at=0.0,
            lifetime=draw(st.sampled_from([0, 1, 60])),
            lwm2m_version=draw(st.sampled_from(["1.0", "1.1", "1.10"])),
            binding=draw(TEXTS),
            queue_mode=draw(st.booleans()),
        )
        fleet.append(
            Device(
                endpoint=name,
                created_at=draw(TIMES),
                registration=draw(st.none() | st.just(registration)),
                registered=draw(st.booleans()),
                facts=draw(FACTS),
                attributes=draw(ATTRIBUTES),
            )
        )
    return fleet


@pytest.fixture(scope="module")
def connection():
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        metadata.create_all(connection)
        yield connection
    engine.dispose()


def put(connection, device):
    values = {"endpoint": device.endpoint}
    if device.registration is not None:
        values = dict(zip(REGISTERED_COLUMNS, registered_row(device.registration), strict=True))
    values |= {field.name: getattr(device.facts, field.name) for field in fields(Facts)}
    for name in ("hardware", "firmware"):
        values[f"{name}_key"] = versions.try_sort_key(values[f"{name}_version"])
    components = device.facts.components
    values["components"] = None if components is None else components_text(components)
    applications = device.facts.applications
    values["applications"] = None if applications is None else applications_text(applications)
    values |= {"created_at": device.created_at, "registered": device.registered}
    connection.execute(insert(devices).values(values))
    replace_components(connection, device.endpoint, components or ())
    replace_applications(connection, device.endpoint, applications or ())
    types = {name: OWN[name] for name in device.attributes}
    _replace_attributes(connection, device.endpoint, device.attributes, types)


@settings(max_examples=400, deadline=None)
@given(fleet=fleets(), trees=st.lists(TREES, min_size=1, max_size=4))
def test_sql_and_memory_select_the_same_devices(connection, fleet, trees):
    connection.exec_driver_sql("DELETE FROM device_attributes")
    connection.exec_driver_sql("DELETE FROM device_components")
    connection.exec_driver_sql("DELETE FROM device_applications")
    connection.execute(delete(devices))
    for device in fleet:
        put(connection, device)
    for tree in trees:
        chosen = set(connection.scalars(select(devices.c.endpoint).where(condition(tree, NOW))))
        assert chosen == {device.endpoint for device in fleet if matches(tree, device, NOW)}, str(tree)


def test_every_condition_and_its_opposite_divide_the_fleet(connection):
    connection.exec_driver_sql("DELETE FROM device_attributes")
    connection.exec_driver_sql("DELETE FROM device_components")
    connection.exec_driver_sql("DELETE FROM device_applications")
    connection.execute(delete(devices))
    put(connection, Device(endpoint="bare", created_at=0.0))
    for name, type_ in SERVERS_OWN.items():
        for operator in OPERATORS[type_]:
            value = {"boolean": True, "number": 1, "time": 1.0, "identifier": "00"}.get(type_, "1")
            tree = Test(name, type_, operator, (value,))
            for each, other in ((tree, Not(tree)), (Not(tree), tree)):
                yes = connection.scalars(select(devices.c.endpoint).where(condition(each, NOW))).all()
                no = connection.scalars(select(devices.c.endpoint).where(condition(other, NOW))).all()
                assert sorted([*yes, *no]) == ["bare"], str(each)


def test_versions_are_compared_as_versions_not_as_text(connection):
    connection.exec_driver_sql("DELETE FROM device_attributes")
    connection.exec_driver_sql("DELETE FROM device_components")
    connection.exec_driver_sql("DELETE FROM device_applications")
    connection.execute(delete(devices))
    for version in ("1.9.0", "1.10.0", "2.0.0-rc1", "2.0.0"):
        put(connection, Device(endpoint=version, created_at=0.0, facts=Facts(firmware_version=version)))
    tree = parse("firmware.version > 1.9 and firmware.version < 2.0")
    chosen = connection.scalars(select(devices.c.endpoint).where(condition(tree, NOW)))
    assert set(chosen) == {"1.10.0", "2.0.0-rc1"}
