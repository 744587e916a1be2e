"""The SUIT envelope: digest, signatures, severed members (draft-ietf-suit-manifest-37, sections 8.2 and 8.3).

Order matters: `verify` checks the digest over the manifest and a signature over that digest before a single
byte of the manifest is interpreted. The digest covers the manifest's byte string *with* its CBOR head; the
signed payload is the encoded SUIT_Digest *without* one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.cose import sign1, verify_blocks
from lwm2m_server.firmware.facts import ManifestFacts, facts_of
from lwm2m_server.firmware.keys import Signer, VerificationKey
from lwm2m_server.firmware.manifest import Manifest, parse_manifest, resolve
from lwm2m_server.firmware.refusals import Malformed, NotTrusted, RefusalCode, refusal
from lwm2m_server.firmware.suit import (
    DIGEST_SHA256,
    ENVELOPE_TAG,
    SEVERABLE,
    Digest,
    EnvelopeKey,
    ManifestKey,
)
from lwm2m_server.firmware.trust import TrustAnchor, anchors_of, judge

MAX_BLOCKS: Final = 8
MAX_ENVELOPE: Final = cbor.MAX_SIZE
_MEMBERS: Final = frozenset(int(key) for key in (*SEVERABLE, ManifestKey.COSWID))


@dataclass(frozen=True, slots=True)
class Envelope:
    """The outer structure, nothing in it interpreted.

    `manifest` is the content of key 3, `blocks` the authentication blocks, `severed` and `payloads` the
    contents of the severed members and of the integrated payloads.
    """

    digest: Digest
    blocks: tuple[bytes, ...]
    manifest: bytes
    severed: tuple[tuple[int, bytes], ...] = ()
    payloads: tuple[tuple[str, bytes], ...] = ()

    def encode(self) -> bytes:
        """With tag 107."""
        members: dict[int | str, bytes] = {
            int(EnvelopeKey.AUTHENTICATION): cbor.encode([self.digest.encode(), *self.blocks]),
            int(EnvelopeKey.MANIFEST): self.manifest,
        }
        return cbor.encode(cbor.Tag(ENVELOPE_TAG, members | dict(self.severed) | dict(self.payloads)))

    def without_text(self) -> Envelope:
        """Drop a severed text member, for devices that have no use for it."""
        return replace(self, severed=tuple(item for item in self.severed if item[0] != ManifestKey.TEXT))


@dataclass(frozen=True, slots=True)
class Verified:
    """A manifest whose digest and signatures hold, with those whose signatures count.

    `facts` is what server and device ask of it; `key_id` the identifier of the image author's key,
    `approver_id` that of the operator who approved, `signer_ids` of all; `envelope` the bytes. `payloads` are
    the integrated payloads by URI, each one with a digest that the manifest names.
    """

    envelope: bytes
    manifest: Manifest
    facts: ManifestFacts
    key_id: bytes
    approver_id: bytes | None = None
    signer_ids: tuple[bytes, ...] = ()
    payloads: Mapping[str, bytes] = field(default_factory=dict)


def wrap(
    manifest: Manifest,
    severed: Iterable[tuple[int, bytes]] = (),
    payloads: Iterable[tuple[str, bytes]] = (),
) -> Envelope:
    """Put an unsigned envelope around a manifest."""
    content = manifest.encode()
    return Envelope(Digest.of(cbor.bstr(content)), (), content, tuple(severed), tuple(payloads))


def parse_envelope(data: bytes) -> Envelope:
    """Read the outer structure only; the tag may be missing. `Refusal` (`malformed`, `unsupported`)."""
    decoded = cbor.decode(data, field="envelope", tags={ENVELOPE_TAG}, max_size=MAX_ENVELOPE)
    if isinstance(decoded, cbor.Tag):
        decoded = decoded.value
    members = cbor.as_map(decoded, "envelope")
    authentication = cbor.as_bytes(members.pop(int(EnvelopeKey.AUTHENTICATION), None), "envelope/2")
    manifest = cbor.as_bytes(members.pop(int(EnvelopeKey.MANIFEST), None), "envelope/3")
    severed: list[tuple[int, bytes]] = []
    payloads: list[tuple[str, bytes]] = []
    for key, value in members.items():
        if isinstance(key, str):
            payloads.append((key, cbor.as_bytes(value, f"envelope/{key}")))
        elif key in _MEMBERS:
            severed.append((key, cbor.as_bytes(value, f"envelope/{key}")))
        else:
            raise refusal(
                RefusalCode.UNSUPPORTED, f"the envelope has member {key}, not supported", field="envelope"
            )
    digest, blocks = _parse_authentication(authentication)
    return Envelope(digest, blocks, manifest, tuple(severed), tuple(payloads))


def sign(envelope: bytes, key: Signer) -> bytes:
    """Add an authentication block (COSE_Sign1, detached) by `key`.

    The manifest and its severed members are checked first: nothing is signed that `verify` would refuse.
    """
    parsed = parse_envelope(envelope)
    read_unverified(envelope)
    if len(parsed.blocks) >= MAX_BLOCKS:
        raise Malformed(f"the envelope already has {MAX_BLOCKS} signatures", field="envelope/2")
    return replace(parsed, blocks=(*parsed.blocks, sign1(key, parsed.digest.encode()))).encode()


def verify(
    envelope: bytes, trusted: Iterable[VerificationKey | TrustAnchor], *, now: float | None = None
) -> Verified:
    """Check digest, signatures and who made them, then the manifest; `Refusal` with its code.

    A bare key counts as an image author without an end (`trust`). `now` is in seconds since 1970, `None`
    without a clock.
    """
    anchors = anchors_of(trusted)
    parsed = parse_envelope(envelope)
    _check_digest(parsed)
    keys = [anchor.key for anchor in anchors]
    signers = judge(
        verify_blocks(parsed.blocks, parsed.digest.encode(), keys, field="envelope/2"),
        anchors,
        now,
        field="envelope/2",
    )
    manifest = resolve(parse_manifest(parsed.manifest), dict(parsed.severed))
    facts = facts_of(manifest)
    _check_payloads(parsed, facts)
    return Verified(
        envelope,
        manifest,
        facts,
        signers.author.key_id,
        signers.approver.key_id if signers.approver else None,
        tuple(key.key_id for key in signers.all),
        dict(parsed.payloads),
    )


def read_unverified(envelope: bytes) -> Manifest:
    """Read a manifest with only its digests checked, for showing and for signing. Never act on it."""
    parsed = parse_envelope(envelope)
    _check_digest(parsed)
    manifest = resolve(parse_manifest(parsed.manifest), dict(parsed.severed))
    _check_payloads(parsed, facts_of(manifest))
    return manifest


def _check_payloads(envelope: Envelope, facts: ManifestFacts) -> None:
    """Payloads are not signed themselves: each must be one that the signed manifest names by its digest."""
    for uri, content in envelope.payloads:
        owners = [component for component in facts.components if uri in component.uris]
        if not owners:
            raise Malformed(
                f"the envelope carries {uri!r}, which no component of the manifest fetches",
                field=f"envelope/{uri}",
            )
        digest = Digest.of(content, DIGEST_SHA256).value
        if not any(digest in component.digests for component in owners):
            raise refusal(
                RefusalCode.DIGEST_MISMATCH,
                f"the integrated payload {uri!r} is not the one that was signed",
                field=f"envelope/{uri}",
            )


def _check_digest(envelope: Envelope) -> None:
    if not envelope.digest.matches(cbor.bstr(envelope.manifest)):
        raise NotTrusted(
            "the manifest was changed: it does not match the digest in its authentication block",
            field="envelope/3",
        )


def _parse_authentication(data: bytes) -> tuple[Digest, tuple[bytes, ...]]:
    at = "envelope/2"
    items: list[Any] = cbor.as_list(cbor.decode(data, field=at), at)
    if not 1 <= len(items) <= 1 + MAX_BLOCKS:
        raise Malformed(f"{at} must hold a digest and at most {MAX_BLOCKS} signatures", field=at)
    digest = Digest.parse(cbor.decode(cbor.as_bytes(items[0], at), field=at), at)
    return digest, tuple(cbor.as_bytes(block, at) for block in items[1:])
