"""The registration of the reference device: Register, Update, De-register, and what goes wrong with them."""

from lwm2m_server.lwm2m.registration import parse_register
from lwm2m_server.transport import Code


async def test_a_register_tells_endpoint_lifetime_version_binding_and_objects(world):
    await world.run(lifetime=120)
    request = world.server.registers()[0]
    assert set(request.query) == {"ep=dev-1", "lt=120", "lwm2m=1.1", "b=U"}
    assert request.content_format == 40
    parsed = parse_register(request.query, request.payload)
    assert parsed.endpoint == "dev-1"
    assert parsed.objects.get(5).version == "1.1"
    assert parsed.objects.get(0) is None
    assert parsed.objects.get(3).instances == (0,)


async def test_updates_come_at_about_half_of_the_lifetime(world):
    await world.run(lifetime=100)
    await world.network.advance(1000)
    assert 17 <= len(world.server.updates()) <= 26
    assert all(not each.query and not each.payload for each in world.server.updates())
    assert len(world.server.registers()) == 1


async def test_an_unknown_registration_is_made_again_at_once(world):
    await world.run(lifetime=100)
    world.server.answers = [(Code.NOT_FOUND, {})]
    await world.network.advance(60)
    assert len(world.server.registers()) == 2


async def test_a_server_that_is_away_is_tried_again_with_growing_pauses(world):
    world.network.cut(world.HOST)
    await world.run()
    await world.network.advance(600)
    failures = [line for line in world.log if "Register failed" in line]
    assert 8 <= len(failures) <= 16
    world.network.mend(world.HOST)
    await world.network.advance(61)
    assert len(world.server.registers()) >= 1
    assert any("Registered" in line for line in world.log)


async def test_a_busy_server_is_left_alone_for_max_age(world):
    world.server.answers = [(Code.SERVICE_UNAVAILABLE, {"max_age": 50})]
    await world.run()
    await world.network.advance(45)
    assert len(world.server.registers()) == 1
    await world.network.advance(10)
    assert len(world.server.registers()) == 2


async def test_an_older_version_is_offered_when_the_server_does_not_speak_the_newer(world):
    world.server.answers = [(Code.PRECONDITION_FAILED, {})]
    await world.run(lwm2m_version="1.2")
    offered = [
        query for each in world.server.registers() for query in each.query if query.startswith("lwm2m")
    ]
    assert offered == ["lwm2m=1.2", "lwm2m=1.1"]


async def test_a_changed_lifetime_is_told_at_once(world):
    await world.run()
    await world.server.write("/1/0/1", b"77")
    await world.network.advance(1)
    assert [each.query for each in world.server.updates()] == [("lt=77",)]


async def test_the_update_trigger_sends_an_update(world):
    await world.run()
    assert await world.server.execute("/1/0/8") == Code.CHANGED
    await world.network.advance(1)
    assert len(world.server.updates()) == 1


async def test_a_new_instance_is_told_with_the_next_update(world):
    await world.run(lifetime=100)
    await world.server.ask(Code.POST, "/3303", payload=b"", content_format=11542)
    await world.network.advance(60)
    assert b"</3303/1>" in world.server.updates()[0].payload


async def test_disable_says_good_bye_and_comes_back(world):
    await world.run()
    await world.server.write("/1/0/5", b"300")
    assert await world.server.execute("/1/0/4") == Code.CHANGED
    await world.network.advance(10)
    assert world.server.seen[-1].code == Code.DELETE
    await world.network.advance(280)
    assert len(world.server.registers()) == 1
    await world.network.advance(20)
    assert len(world.server.registers()) == 2


async def test_a_stop_deregisters(world):
    await world.run()
    await world.stop()
    assert world.server.seen[-1].code == Code.DELETE
    assert "De-registered" in world.log


async def test_a_lifetime_of_zero_needs_no_updates(world):
    await world.run(lifetime=0)
    await world.network.advance(2000)
    assert world.server.updates() == []
