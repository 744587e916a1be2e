"""Contract of devices, registrations and observations."""

import asyncio
import math
from dataclasses import replace

import pytest

from lwm2m_server.devices.attributes import AttributeType
from lwm2m_server.devices.filter import parse
from lwm2m_server.devices.records import (
    ApplicationFacts,
    ComponentFacts,
    Device,
    Facts,
    Observation,
    Registration,
)
from lwm2m_server.errors import Conflict, ForeignName, InvalidInput, NotFound
from lwm2m_server.store.records import Credential, NewEvent, Registered, RegistrationUpdate


def registration(endpoint="dev", id_=None, at=1000.0, **changes):
    values = {
        "registration_id": id_ or f"id-{endpoint}",
        "endpoint": endpoint,
        "address": "192.0.2.1:5683",
        "registered_at": at,
        "last_seen": at,
        "expires_at": at + 300,
        "lifetime": 300,
        "lwm2m_version": "1.1",
        "links": "</3/0>",
        "objects": ("/3/0",),
    }
    return Registration(**(values | changes))


async def kinds(store, endpoint):
    return [event.kind for event in await store.events.after(0, endpoint=endpoint)]


async def test_a_registration_makes_the_device_known(store):
    wanted = registration(queue_mode=True, identity="id", binding="UT")
    assert await store.registrations.register([wanted]) == [Registered("id-dev", "dev", created=True)]
    device = await store.devices.get("dev")
    assert device == Device(endpoint="dev", created_at=1000.0, registration=wanted, registered=True)
    assert await store.registrations.find("id-dev") == wanted
    (event,) = await store.events.after(0)
    assert (event.kind, event.at, event.endpoint) == ("device.registered", 1000.0, "dev")
    assert event.data == {
        "registration_id": "id-dev",
        "address": "192.0.2.1:5683",
        "lifetime": 300,
        "created": True,
        "replaced": None,
    }


async def test_a_second_register_replaces_the_first_and_keeps_the_device(store):
    await store.registrations.register([registration()])
    await store.devices.set_facts("dev", Facts(model="M"))
    await store.devices.set_attributes("dev", {"region": "eu"})
    await store.observations.add(Observation(endpoint="dev", path="/5/0/3", owner="update", created_at=1.0))
    (result,) = await store.registrations.register([registration(id_="new", at=2000.0)])
    assert result == Registered("new", "dev", created=False, replaced="id-dev")
    device = await store.devices.get("dev")
    assert (device.created_at, device.facts.model, dict(device.attributes)) == (1000.0, "M", {"region": "eu"})
    assert len(await store.observations.of("dev")) == 1
    assert await store.registrations.find("id-dev") is None
    assert await store.registrations.update([RegistrationUpdate(registration_id="id-dev", at=2001.0)]) == [
        None
    ]


async def test_one_endpoint_twice_in_a_batch_ends_with_the_later(store):
    first, second = registration(id_="a"), registration(id_="b", at=1001.0)
    results = await store.registrations.register([first, second])
    assert results == [Registered("a", "dev", created=True), Registered("b", "dev", replaced="a")]
    assert await store.registrations.find("a") is None
    assert (await store.devices.get("dev")).registration == second
    assert await kinds(store, "dev") == ["device.registered"] * 2


async def test_a_wrong_registration_fails_alone(store):
    await store.registrations.register([registration("one", "taken")])
    batch = [registration("two"), registration("three", "taken"), registration("four")]
    two, three, four = await store.registrations.register(batch)
    assert (two, four) == (
        Registered("id-two", "two", created=True),
        Registered("id-four", "four", created=True),
    )
    assert isinstance(three, Exception)
    assert await store.devices.get("three") is None
    assert (await store.registrations.find("taken")).endpoint == "one"
    assert [e.endpoint for e in await store.events.after(0)] == ["one", "two", "four"]


async def test_registrations_that_come_at_once_all_succeed(store):
    calls = [store.registrations.register([registration(f"dev-{n}")]) for n in range(50)]
    results = [result for (result,) in await asyncio.gather(*calls)]
    assert results == [Registered(f"id-dev-{n}", f"dev-{n}", created=True) for n in range(50)]
    assert await store.devices.count(now=0.0) == 50


async def test_nothing_to_register_is_no_error(store):
    assert await store.registrations.register([]) == []
    assert await store.events.last_id() == 0


async def test_an_update_changes_what_it_names(store):
    await store.registrations.register([registration()])
    update = RegistrationUpdate(
        registration_id="id-dev",
        at=1100.0,
        address="192.0.2.9:1",
        identity="psk",
        lifetime=60,
        expires_at=1190.0,
        links="</3/0>,</5/0>",
        objects=("/3/0", "/5/0"),
        queue_mode=True,
        binding="UT",
    )
    (new,) = await store.registrations.update([update])
    assert new == registration()._replace(
        last_seen=1100.0,
        address="192.0.2.9:1",
        identity="psk",
        lifetime=60,
        expires_at=1190.0,
        links="</3/0>,</5/0>",
        objects=("/3/0", "/5/0"),
        queue_mode=True,
        binding="UT",
    )
    assert await store.registrations.find("id-dev") == new
    event = (await store.events.before())[0]
    assert (event.kind, event.at) == ("device.updated", 1100.0)
    assert event.data["changed"] == ["lifetime", "binding", "queue_mode", "objects", "links"]


async def test_an_update_of_liveness_or_address_alone_writes_no_event(store):
    await store.registrations.register([registration()])
    bare = RegistrationUpdate(registration_id="id-dev", at=1100.0)
    moved = RegistrationUpdate(registration_id="id-dev", at=1200.0, address="192.0.2.9:1")
    one, two = await store.registrations.update([bare, moved])
    assert (one.last_seen, one.expires_at) == (1100.0, 1400.0)
    assert (two.last_seen, two.expires_at, two.address) == (1200.0, 1500.0, "192.0.2.9:1")
    assert await kinds(store, "dev") == ["device.registered"]


async def test_updates_of_unknown_ids_are_none(store):
    await store.registrations.register([registration()])
    unknown = RegistrationUpdate(registration_id="nobody", at=1.0)
    known = RegistrationUpdate(registration_id="id-dev", at=1001.0)
    nothing, something = await store.registrations.update([unknown, known])
    assert nothing is None
    assert something.last_seen == 1001.0


async def test_beats_move_expiry_and_never_back(store):
    await store.registrations.register([registration("a"), registration("b", expires_at=math.inf)])
    await store.registrations.alive([("id-a", 1100.0), ("nobody", 5.0), ("id-b", 1100.0), ("id-a", 1050.0)])
    a = await store.registrations.find("id-a")
    assert (a.last_seen, a.expires_at) == (1100.0, 1400.0)
    b = await store.registrations.find("id-b")
    assert (b.last_seen, b.expires_at) == (1100.0, math.inf)
    assert await kinds(store, "a") == ["device.registered"]


async def test_a_sign_of_life_after_the_end_changes_nothing(store):
    await store.registrations.register([registration("a"), registration("b")])
    await store.registrations.alive([("id-a", 1100.0), ("id-b", 1100.0)])
    await store.registrations.deregister([("id-a", None)], now=1150.0)
    await store.registrations.register([registration("b", "id-b2", at=1160.0)])
    await store.registrations.alive([("id-a", 1200.0), ("id-b", 1200.0)])
    assert (await store.devices.get("a")).registration.last_seen == 1100.0
    assert (await store.devices.get("b")).registration.last_seen == 1160.0


async def test_a_registration_is_its_identitys_alone(store):
    await store.registrations.register([registration("a", identity="psk:a"), registration("b")])
    answers = await store.registrations.update(
        [
            RegistrationUpdate(registration_id=id_, at=1100.0, lifetime=77, owner=owner)
            for id_, owner in (("id-a", None), ("id-a", "b"), ("id-b", "a"), ("id-a", "a"), ("id-b", None))
        ]
    )
    assert [isinstance(answer, ForeignName) for answer in answers] == [True, True, True, False, False]
    ends = [("id-a", None), ("id-a", "b"), ("id-b", "a"), ("nobody", "a")]
    answers = await store.registrations.deregister(ends, now=1200.0)
    assert [isinstance(answer, ForeignName) for answer in answers] == [True, True, True, False]
    assert "device.deregistered" not in await kinds(store, "a")
    assert await store.registrations.deregister([("id-a", "a"), ("id-b", None)], now=1200.0) == ["a", "b"]


async def test_an_identity_that_was_proved_once_is_not_given_up(store):
    await store.registrations.register([registration("a", identity="psk:a")])
    (refused,) = await store.registrations.register([registration("a", "id-2", at=1100.0)])
    assert isinstance(refused, ForeignName)
    assert (await store.registrations.find("id-a")).identity == "psk:a"
    (other,) = await store.registrations.register([registration("a", "id-3", at=1200.0, identity="rpk:b")])
    assert other.replaced == "id-a"


async def test_a_name_with_credentials_is_not_taken_without_them(store):
    await store.credentials.add(
        Credential(identity="psk:a", kind="psk", endpoint="a", created_at=1.0, revoked_at=2.0, secret=b"s")
    )
    one, two = await store.registrations.register([registration("a"), registration("b")])
    assert isinstance(one, ForeignName)
    assert two.created


async def test_deregistering_keeps_the_device(store):
    await store.registrations.register([registration("a"), registration("b")])
    ended = await store.registrations.deregister(
        [("id-a", None), ("nobody", None), ("id-a", None)], now=1500.0
    )
    assert ended == ["a", None, None]
    device = await store.devices.get("a")
    assert device.registered is False
    assert device.registration.registration_id == "id-a"
    assert await store.registrations.find("id-a") is None
    assert await kinds(store, "a") == ["device.registered", "device.deregistered"]
    (again,) = await store.registrations.register([registration("a", "id-a2", at=1600.0)])
    assert again == Registered("id-a2", "a", created=False, replaced=None)


async def test_expiry_comes_in_bounded_chunks_earliest_first(store):
    await store.registrations.register([registration(f"d{n}", expires_at=2000.0 - n) for n in range(5)])
    await store.registrations.register([registration("never", expires_at=math.inf)])
    first = await store.registrations.expire(now=2000.0, limit=3)
    second = await store.registrations.expire(now=2000.0, limit=3)
    assert [each.endpoint for each in first] == ["d4", "d3", "d2"]
    assert [each.endpoint for each in second] == ["d1", "d0"]
    assert await store.registrations.expire(now=2000.0) == []
    assert (await store.devices.get("d0")).registered is False
    assert await kinds(store, "d0") == ["device.registered", "device.expired"]


async def test_a_sign_of_life_puts_the_expiry_off(store):
    await store.registrations.register([registration("a"), registration("b")])
    await store.registrations.alive([("id-a", 1200.0)])
    assert [each.endpoint for each in await store.registrations.expire(now=1300.0)] == ["b"]
    assert await store.registrations.expire(now=1499.0) == []
    await store.registrations.alive([("id-a", 1400.0)])
    assert await store.registrations.expire(now=1600.0) == []
    assert [each.endpoint for each in await store.registrations.expire(now=1700.0)] == ["a"]
    assert await kinds(store, "a") == ["device.registered", "device.expired"]


async def test_signs_of_life_of_a_whole_fleet_put_the_expiry_off(store):
    await store.registrations.register([registration(f"d{n:04}") for n in range(2500)])
    await store.registrations.alive([(f"id-d{n:04}", 1200.0) for n in range(2500) if n != 7])
    assert [each.endpoint for each in await store.registrations.expire(now=1300.0)] == ["d0007"]


async def test_live_registrations_are_walked_page_by_page(store):
    await store.registrations.register([registration(f"d{n}") for n in range(5)])
    await store.registrations.deregister([("id-d2", None)], now=1.0)
    seen, after = [], None
    while True:
        page = await store.registrations.live(after=after, limit=2)
        seen += [each.registration_id for each in page.items]
        after = page.next
        if after is None:
            break
    assert seen == ["id-d0", "id-d1", "id-d3", "id-d4"]


async def test_facts_add_up_and_are_cleaned(store):
    await store.registrations.register([registration()])
    facts = Facts(manufacturer="Acme\0\n", firmware_version="1.10.0", running_digest=b"\1" * 32)
    assert await store.devices.set_facts("dev", facts)
    assert await store.devices.set_facts("dev", Facts(vendor_id=b"\2" * 16, understands_manifests=True))
    assert await store.devices.set_facts("dev", Facts())
    assert (await store.devices.get("dev")).facts == Facts(
        manufacturer="Acme",
        firmware_version="1.10.0",
        running_digest=b"\1" * 32,
        vendor_id=b"\2" * 16,
        understands_manifests=True,
    )
    assert not await store.devices.set_facts("nobody", facts)
    assert not await store.devices.set_facts("nobody", Facts())


MODEM = ComponentFacts(
    instance=1, name="modem", version="1.9", digest=b"\1" * 32, capacity=4096, linked=(0,), conflicting=(2, 3)
)


async def test_components_stay_until_they_are_told_anew(store):
    await store.registrations.register([registration()])
    main = ComponentFacts(instance=0, name="00", version="1.0.0")
    assert await store.devices.set_facts("dev", Facts(capacity=2**40, components=(MODEM, main)))
    assert await store.devices.set_facts("dev", Facts(model="M"))
    assert (await store.devices.get("dev")).facts == Facts(
        model="M", capacity=2**40, components=(main, MODEM)
    )
    assert await store.devices.count(filter=parse("component.modem.version < 1.10"), now=0.0) == 1
    assert await store.devices.set_facts("dev", Facts(components=()))
    assert (await store.devices.get("dev")).facts == Facts(model="M", capacity=2**40, components=())
    assert await store.devices.count(filter=parse("exists component.modem.version"), now=0.0) == 0
    assert not await store.devices.set_facts("nobody", Facts(components=(MODEM,)))


async def test_of_two_components_with_one_name_the_first_instance_counts(store):
    await store.registrations.register([registration()])
    given = (replace(MODEM, instance=4, version="2"), MODEM, replace(MODEM, instance=0, name="\0"))
    await store.devices.set_facts("dev", Facts(components=given))
    assert (await store.devices.get("dev")).facts.components == (MODEM,)
    assert await store.devices.count(filter=parse("component.modem.version = 1.9"), now=0.0) == 1
    await store.devices.delete("dev")
    await store.registrations.register([registration()])
    assert await store.devices.count(filter=parse("exists component.modem.version"), now=0.0) == 0


async def test_applications_stay_until_they_are_told_anew_and_free_places_are_kept(store):
    await store.registrations.register([registration()])
    meter = ApplicationFacts(instance=0, name="meter", version="1.9", active=True)
    free = (ApplicationFacts(instance=1), ApplicationFacts(instance=2))
    given = (*free, replace(meter, instance=3, version="2"), meter)
    assert await store.devices.set_facts("dev", Facts(applications=given))
    assert await store.devices.set_facts("dev", Facts(model="M"))
    found = (await store.devices.get("dev")).facts
    assert found == Facts(model="M", applications=(meter, *free))
    assert (found.application("meter"), found.application("")) == (meter, free[0])
    for text, count in (
        ("software.meter.version < 1.10", 1),
        ("software.meter.active = true", 1),
        ("exists software.pump.version", 0),
    ):
        assert await store.devices.count(filter=parse(text), now=0.0) == count
    assert await store.devices.set_facts("dev", Facts(applications=()))
    assert (await store.devices.get("dev")).facts == Facts(model="M", applications=())
    assert await store.devices.count(filter=parse("exists software.meter.version"), now=0.0) == 0


async def test_formats_are_replaced(store):
    await store.registrations.register([registration()])
    assert await store.devices.set_formats("dev", {"read": 112, "composite": False})
    assert await store.devices.set_formats("dev", {"read": 110})
    assert (await store.devices.get("dev")).formats == {"read": 110}
    assert not await store.devices.set_formats("nobody", {})


async def test_attributes_are_set_and_removed(store):
    await store.registrations.register([registration()])
    event = NewEvent(kind="device.edited", at=5.0, endpoint="dev")
    device = await store.devices.set_attributes(
        "dev", {"region": "eu", "ring": 3, "ratio": 0.5, "beta": True}, events=[event]
    )
    assert device.attributes == {"region": "eu", "ring": 3, "ratio": 0.5, "beta": True}
    assert device.revision == 1
    device = await store.devices.set_attributes("dev", {"region": None, "ring": 4}, revision=1)
    assert device == await store.devices.get("dev")
    assert device.attributes == {"ring": 4, "ratio": 0.5, "beta": True}
    assert await store.devices.attribute_types() == {
        "region": AttributeType.TEXT,
        "ring": AttributeType.NUMBER,
        "ratio": AttributeType.NUMBER,
        "beta": AttributeType.BOOLEAN,
    }
    assert await kinds(store, "dev") == ["device.registered", "device.edited"]


async def test_edits_of_attributes_are_refused_whole(store):
    await store.registrations.register([registration()])
    await store.devices.set_attributes("dev", {"region": "eu"})
    event = NewEvent(kind="device.edited", at=5.0, endpoint="dev")
    with pytest.raises(Conflict):
        await store.devices.set_attributes("dev", {"region": "us"}, revision=0, events=[event])
    with pytest.raises(InvalidInput, match="region holds a text"):
        await store.devices.set_attributes("dev", {"ring": 1, "region": 5}, events=[event])
    with pytest.raises(InvalidInput, match="the server's own"):
        await store.devices.set_attributes("dev", {"ring": 1, "model": "x"}, events=[event])
    with pytest.raises(NotFound):
        await store.devices.set_attributes("nobody", {"region": "eu"}, events=[event])
    assert (await store.devices.get("dev")).attributes == {"region": "eu"}
    assert await store.devices.attribute_types() == {"region": AttributeType.TEXT}
    assert await kinds(store, "dev") == ["device.registered"]


async def test_a_version_attribute_is_defined_first(store):
    await store.registrations.register([registration("a"), registration("b")])
    event = NewEvent(kind="attribute.defined", at=1.0)
    await store.devices.define_attribute("boot", AttributeType.VERSION, events=[event])
    await store.devices.define_attribute("boot", AttributeType.VERSION, events=[event])
    assert [each.kind for each in await store.events.after(0)].count("attribute.defined") == 1
    await store.devices.set_attributes("a", {"boot": "1.9"})
    await store.devices.set_attributes("b", {"boot": "1.10"})
    with pytest.raises(InvalidInput):
        await store.devices.set_attributes("a", {"boot": "none"})
    with pytest.raises(Conflict):
        await store.devices.define_attribute("boot", AttributeType.TEXT)
    tree = parse("boot < 1.10", await store.devices.attribute_types())
    assert (await store.devices.endpoints(filter=tree, now=0.0)).items == ("a",)


async def test_devices_are_paged_filtered_and_counted(store):
    await store.registrations.register([registration(f"d{n}") for n in range(7)])
    for n in range(7):
        await store.devices.set_facts(f"d{n}", Facts(model="M" if n % 2 else "N"))
    tree = parse('model = "M"')
    first = await store.devices.page(filter=tree, now=0.0, limit=2)
    assert ([d.endpoint for d in first.items], first.next) == (["d1", "d3"], "d3")
    second = await store.devices.page(filter=tree, now=0.0, limit=2, after=first.next)
    assert ([d.endpoint for d in second.items], second.next) == (["d5"], None)
    assert (await store.devices.endpoints(now=0.0, limit=7)).next is None
    assert await store.devices.count(filter=tree, now=0.0) == 3
    assert sorted(await store.devices.get_many(["d1", "nobody", "d2", "d1"])) == ["d1", "d2"]


async def test_a_deleted_device_takes_its_observations_along(store):
    await store.registrations.register([registration()])
    await store.devices.set_attributes("dev", {"region": "eu"})
    await store.observations.add(Observation(endpoint="dev", path="/3", owner="operator", created_at=1.0))
    gone = NewEvent(kind="device.deleted", at=5.0, endpoint="dev")
    assert await store.devices.delete("dev", events=[gone])
    assert not await store.devices.delete("dev", events=[gone])
    assert await store.devices.get("dev") is None
    assert await store.registrations.find("id-dev") is None
    assert await store.observations.of("dev") == []
    assert await kinds(store, "dev") == ["device.registered", "device.deleted"]
    assert await store.registrations.register([registration()]) == [Registered("id-dev", "dev", created=True)]
    assert (await store.devices.get("dev")).attributes == {}


async def test_registered_devices_with_observations_are_walked_page_by_page(store):
    await store.registrations.register([registration(f"d{n}") for n in range(6)])
    for endpoint in ("d1", "d2", "d4", "d5"):
        for path in ("/3", "/5"):
            wish = Observation(endpoint=endpoint, path=path, owner="operator", created_at=1.0)
            await store.observations.add(wish)
    await store.registrations.deregister([("id-d2", None)], now=1.0)
    first = await store.observations.observed(limit=2)
    assert first.items == ("d1", "d4")
    assert (await store.observations.observed(after=first.next, limit=2)).items == ("d5",)


async def test_observations_are_kept_by_path_and_owner(store):
    await store.registrations.register([registration()])
    first = Observation(endpoint="dev", path="/5/0/3", owner="update", created_at=1.0)
    second = Observation(endpoint="dev", path="/5/0/3", owner="operator", created_at=2.0, accept=112)
    assert await store.observations.add(first)
    assert await store.observations.add(second)
    assert not await store.observations.add(replace(first, created_at=3.0))
    assert await store.observations.of("dev") == [second, replace(first, created_at=3.0)]
    assert await store.observations.remove("dev", "/5/0/3", "update")
    assert not await store.observations.remove("dev", "/5/0/3", "update")
    with pytest.raises(NotFound):
        await store.observations.add(replace(first, endpoint="nobody"))
