"""Keys of boot loaders: added once, listed in order, removed; each change with its event."""

from lwm2m_server.store.image_keys import StoredImageKey
from lwm2m_server.store.records import NewEvent


def key(name: str) -> StoredImageKey:
    return StoredImageKey(
        key_id=name,
        name=f"key {name}",
        algorithm="ed25519",
        public_key=b"pem",
        created_at=1.0,
        created_by="ann",
    )


async def test_keys_are_added_once_listed_and_removed_with_their_events(store) -> None:
    event = [NewEvent(kind="image-key.added", at=1.0, data={})]
    assert await store.image_keys.add(key("b"), events=event)
    assert await store.image_keys.add(key("a"))
    assert not await store.image_keys.add(key("b"), events=event)
    assert await store.image_keys.all() == [key("a"), key("b")]
    assert await store.image_keys.remove("b", events=[NewEvent(kind="image-key.removed", at=2.0, data={})])
    assert not await store.image_keys.remove("b", events=event)
    assert await store.image_keys.all() == [key("a")]
    kinds = [each.kind for each in await store.events.after(0, limit=10)]
    assert kinds == ["image-key.added", "image-key.removed"]
