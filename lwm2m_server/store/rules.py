"""What holds for every implementation of the ports: the effect of an Update, the words of refusals."""

from typing import Any

from lwm2m_server.campaigns.records import Campaign, Deployment
from lwm2m_server.devices.records import Registration
from lwm2m_server.errors import Conflict, ForeignName, InvalidInput, NotFound
from lwm2m_server.store.records import JsonValue, NewEvent, RegistrationUpdate, StoredManifest, Token

MAX_SEQUENCE = 2**63 - 1  # what a 64-bit column holds


def digest_key(after: str) -> bytes:
    """Return the digest in a page's `next`; `InvalidInput` when it isn't one."""
    try:
        return bytes.fromhex(after)
    except ValueError:
        raise InvalidInput(
            f"{after[:80]!r} is not the end of a page", field="after", hint="pass `next` of the page before"
        ) from None


def check_sequence(manifest: StoredManifest) -> None:
    """Refuse a sequence number that can't be stored."""
    if not 0 <= manifest.sequence <= MAX_SEQUENCE:
        raise InvalidInput(
            f"the sequence number {manifest.sequence} is out of range",
            field="sequence",
            hint=f"use one from 0 to {MAX_SEQUENCE}",
        )


def check_step(old: Campaign | Deployment, new: Campaign | Deployment) -> None:
    """Refuse what isn't a next revision of the same record: a mistake in the program."""
    same = (
        old.id == new.id
        if isinstance(old, Campaign) and isinstance(new, Campaign)
        else isinstance(old, Deployment)
        and isinstance(new, Deployment)
        and (old.campaign_id, old.endpoint) == (new.campaign_id, new.endpoint)
    )
    if not same or new.revision != old.revision + 1:
        raise ValueError(f"revision {new.revision} doesn't follow revision {old.revision} of the same record")


def image_in_use(digest: bytes) -> Conflict:
    """Return the refusal to delete an image that a manifest names."""
    return Conflict(
        f"image {digest.hex()} is named by a manifest",
        code="in-use",
        field="digest",
        hint="delete the manifest first",
    )


def no_image(digest: bytes) -> NotFound:
    """Return the refusal of a manifest whose image isn't there."""
    return NotFound(
        f"there is no image with digest {digest.hex()}", field="image", hint="upload the image first"
    )


def manifest_in_use(manifest_id: str) -> Conflict:
    """Return the refusal to delete a manifest that a campaign names."""
    return Conflict(
        f"manifest {manifest_id} is named by a campaign",
        code="in-use",
        field="manifest",
        hint="delete the campaign first",
    )


def no_manifest(manifest_id: str) -> NotFound:
    """Return the refusal of a campaign whose manifest isn't there."""
    return NotFound(f"there is no manifest {manifest_id}", field="manifest", hint="upload the manifest first")


def token_taken(token: Token) -> Conflict:
    """Return the refusal of a second token of one name."""
    return Conflict(f"there is a token {token.name!r} already", field="name", hint="choose another name")


def campaign_taken(campaign: Campaign) -> Conflict:
    """Return the refusal of a second campaign of one name."""
    return Conflict(
        f"there is a campaign {campaign.name!r} already", field="name", hint="choose another name"
    )


def no_campaign(campaign_id: str) -> NotFound:
    """Return the refusal of deployments whose campaign isn't there."""
    return NotFound(f"there is no campaign {campaign_id}", field="campaign", hint="list the campaigns")


def no_device(endpoint: str) -> NotFound:
    """Return the refusal of work on a device that isn't known."""
    return NotFound(f"there is no device {endpoint!r}", field="endpoint", hint="list the devices")


def stale_device(endpoint: str) -> Conflict:
    """Return the refusal of an edit that rests on an old reading."""
    return Conflict(
        f"{endpoint} was changed in the meantime", code="stale", field="revision", hint="read it again"
    )


def foreign(endpoint: str, identity: str | None, owner: str | None) -> ForeignName | None:
    """Return the refusal if a sender may not touch what is registered under this name with this identity.

    `owner` is the name that the sender's identity may use. Who has none may touch what was registered without:
    an identity that was proved once is not given up because somebody leaves it out.
    """
    may_touch = owner == endpoint or (owner is None and identity is None)
    return None if may_touch else ForeignName(endpoint)


def updated(old: Registration, update: RegistrationUpdate) -> Registration:
    """Return the registration after an Update; time never goes back."""
    seen = max(old.last_seen, update.at)
    given: dict[str, Any] = {
        name: value
        for name in ("lifetime", "binding", "queue_mode", "links", "objects")
        if (value := getattr(update, name)) is not None
    }
    if update.address is not None:
        given |= {"address": update.address, "identity": update.identity}
    expires = old.expires_at - old.last_seen + seen if update.expires_at is None else update.expires_at
    return old._replace(**given, last_seen=seen, expires_at=expires)


def changed(old: Registration, new: Registration) -> list[str]:
    """Return what changed beyond liveness and address."""
    return [
        name
        for name in ("lifetime", "binding", "queue_mode", "objects", "links")
        if getattr(old, name) != getattr(new, name)
    ]


def updated_event(new: Registration, changes: list[str], at: float) -> NewEvent:
    """Return the event of an Update that changed more than liveness."""
    data: dict[str, JsonValue] = {
        "registration_id": new.registration_id,
        "changed": list[JsonValue](changes),
        "lifetime": new.lifetime,
    }
    return NewEvent(kind="device.updated", at=at, endpoint=new.endpoint, data=data)


def ended_event(registration_id: str, endpoint: str, at: float, how: str) -> NewEvent:
    """Return the event of a registration that has ended; `how` is `deregistered` or `expired`."""
    data: dict[str, JsonValue] = {"registration_id": registration_id}
    return NewEvent(kind=f"device.{how}", at=at, endpoint=endpoint, data=data)
