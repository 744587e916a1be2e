"""Encrypted payloads: the draft's own example, what is refused by which code, and the manifest around them."""

import hashlib
from dataclasses import replace

import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.build import ComponentDescription, ManifestDescription, build_manifest
from lwm2m_server.firmware.commands import Directive, walk
from lwm2m_server.firmware.describe import describe
from lwm2m_server.firmware.description import EncryptedPayload
from lwm2m_server.firmware.effects import ComponentState, DeviceFacts
from lwm2m_server.firmware.encryption import (
    A128CTR,
    ContentCipher,
    encryption_info,
    kek_id,
    parse_encryption_info,
    payload_component,
    read_kek,
    unwrap,
)
from lwm2m_server.firmware.envelope import Verified, read_unverified
from lwm2m_server.firmware.facts import facts_of
from lwm2m_server.firmware.lint import lint
from lwm2m_server.firmware.refusals import Refusal
from lwm2m_server.firmware.suit import DirectiveCode, class_id, vendor_id

# the example of draft-ietf-suit-firmware-encryption for AES key wrap and AES-CTR
KEK = b"a" * 16
WRAPPED = bytes.fromhex("CE34035CE5C2E2666E46D4C131FC561DD190A6D26CFA1990")
EXAMPLE_IV = bytes.fromhex("93702C81590F845D9EC866CCAC767BD1")
EXAMPLE_TEXT = b"This is a real firmware image."
EXAMPLE_PAYLOAD = bytes.fromhex("B74188DE68CD904873C7D4AB265A7F5608AC63F68DBBCE7773ADCB38DA07")

IMAGE = b"firmware-version: 2.0.0\n" + bytes(range(256)) * 4
CONTENT_KEY = bytes(range(16))
INFO = encryption_info(CONTENT_KEY, [(KEK, b"kid-1")])
SENT = ContentCipher(CONTENT_KEY, bytes(16)).apply(0, IMAGE)
HIDDEN = EncryptedPayload(digest=hashlib.sha256(SENT).digest(), size=len(SENT), info=INFO)
MAIN = (b"\x00",)
DESCRIPTION = ManifestDescription(
    vendor_domain="acme.example",
    class_name="meter",
    version="2.0.0",
    sequence_number=7,
    image_digest=hashlib.sha256(IMAGE).digest(),
    image_size=len(IMAGE),
    image_uri="/fw/sent",
    encrypted=HIDDEN,
)


def structure(
    protected: bytes = b"",
    unprotected: object = None,
    payload: object = None,
    recipients: object = None,
    tag: int = 96,
) -> bytes:
    """Encode a SUIT_Encryption_Info, with what a test wants to be wrong with it."""
    headers = {1: A128CTR, 5: EXAMPLE_IV} if unprotected is None else unprotected
    own = [[b"", {1: -3, 4: b"kid-1"}, WRAPPED]] if recipients is None else recipients
    return cbor.encode(cbor.Tag(tag, [protected, headers, payload, own]))


def refused(data: bytes) -> str:
    with pytest.raises(Refusal) as caught:
        parse_encryption_info(data)
    assert caught.value.field is not None
    return str(caught.value.code)


def test_the_example_of_the_draft_is_decrypted() -> None:
    cipher = unwrap(parse_encryption_info(structure()), [KEK])
    assert cipher.apply(0, EXAMPLE_PAYLOAD) == EXAMPLE_TEXT
    assert cipher.apply(17, EXAMPLE_PAYLOAD[17:]) == EXAMPLE_TEXT[17:]


def test_what_is_made_is_read_and_holds_for_each_key_class() -> None:
    other = b"b" * 16
    info = parse_encryption_info(encryption_info(CONTENT_KEY, [(KEK, b"meters"), (other, kek_id(other))]))
    assert [each.key_id for each in info.recipients] == [b"meters", kek_id(other)]
    assert unwrap(info, [KEK]) == unwrap(info, [bytes(16), other]) == ContentCipher(CONTENT_KEY, bytes(16))


def test_a_device_without_a_key_and_one_with_another_key_are_told_apart() -> None:
    info = parse_encryption_info(INFO)
    for keys, code in (([], "no-decryption-key"), ([b"x" * 16], "decryption-key")):
        with pytest.raises(Refusal, match="for key kid-1") as caught:
            unwrap(info, keys)
        assert (caught.value.code, caught.value.field) == (code, "encryption-info")
        assert caught.value.update_result == 5


@pytest.mark.parametrize("at", [0, 11, 23])
def test_an_altered_wrapped_key_is_no_key(at: int) -> None:
    altered = bytearray(WRAPPED)
    altered[at] ^= 1
    info = parse_encryption_info(structure(recipients=[[b"", {1: -3}, bytes(altered)]]))
    with pytest.raises(Refusal, match="without a name") as caught:
        unwrap(info, [KEK])
    assert caught.value.code == "decryption-key"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "malformed"),
        (cbor.encode([b"", {}, None, []]), "malformed"),
        (structure(tag=16), "malformed"),
        (structure(payload=b"attached"), "malformed"),
        (structure(protected=cbor.encode({1: A128CTR}), unprotected={5: EXAMPLE_IV}), "malformed"),
        (structure(protected=cbor.encode({1: A128CTR})), "malformed"),
        (structure(unprotected={1: A128CTR, 5: EXAMPLE_IV[:12]}), "malformed"),
        (structure(unprotected={1: A128CTR}), "malformed"),
        (structure(unprotected={1: A128CTR, 2: [5], 5: EXAMPLE_IV}), "malformed"),
        (structure(unprotected={5: EXAMPLE_IV}), "malformed"),
        (structure(recipients=[]), "malformed"),
        (structure(recipients=[[b"", {1: -3}, WRAPPED]] * 17), "malformed"),
        (structure(recipients=[[b"", {1: -3}, WRAPPED[:16]]]), "malformed"),
        (structure(recipients=[[b"", {1: -3}]]), "malformed"),
        (structure(protected=cbor.encode({1: 1}), unprotected={5: EXAMPLE_IV[:12]}), "unsupported"),
        (structure(unprotected={1: -65531, 5: EXAMPLE_IV}), "unsupported"),
        (structure(recipients=[[b"", {1: -5}, WRAPPED]]), "unsupported"),
        (structure(recipients=[[cbor.encode({1: -25}), {4: b"kid-2"}, b""]]), "unsupported"),
    ],
)
def test_what_is_not_this_profile_is_refused_by_name(data: bytes, code: str) -> None:
    assert refused(data) == code


def test_recipients_of_other_kinds_are_passed_over() -> None:
    other = [cbor.encode({1: -25}), {4: b"kid-2"}, b""]
    info = parse_encryption_info(structure(recipients=[other, [b"", {1: -3, 4: b"kid-1"}, WRAPPED]]))
    assert [each.key_id for each in info.recipients] == [b"kid-1"]


def test_a_key_file_has_sixteen_bytes_or_hex() -> None:
    assert read_kek(KEK, "key") == read_kek(KEK.hex().encode() + b"\n", "key") == KEK
    for content in (b"", KEK[:15], KEK + b"\n", b"no hex", KEK.hex().encode()[:-2], b"\xff" * 32):
        with pytest.raises(InvalidInput, match="no AES-128 key") as caught:
            read_kek(content, "key")
        assert caught.value.field == "key"


def facts(**changes: object) -> DeviceFacts:
    vendor = vendor_id("acme.example")
    state = ComponentState(version="1.0.0", capacity=65536)
    made = DeviceFacts(
        vendor_ids=frozenset({vendor}),
        class_ids=frozenset({class_id(vendor, "meter")}),
        components={MAIN: state, payload_component(MAIN): ComponentState(), (b"\x01",): state},
    )
    return replace(made, **changes)


def verified(description: ManifestDescription) -> Verified:
    envelope = build_manifest(description)
    manifest = read_unverified(envelope)
    return Verified(envelope, manifest, facts_of(manifest), b"", b"", (), {})


def test_the_manifest_names_what_is_fetched_and_what_comes_of_it() -> None:
    found = verified(DESCRIPTION)
    main, sent = found.facts.components
    assert (main.digests, main.sizes) == ((DESCRIPTION.image_digest,), (len(IMAGE),))
    assert (main.encryption, main.source, main.is_decrypted) == (INFO, 1, True)
    assert sent.component == payload_component(MAIN)
    assert (sent.digests, sent.sizes, sent.uris) == ((HIDDEN.digest,), (len(SENT),), ("/fw/sent",))
    codes = [c.code for c in walk(found.manifest.install) if isinstance(c, Directive)]
    assert codes == [DirectiveCode.FETCH, DirectiveCode.COPY]
    assert found.facts.version == "2.0.0"


def test_plain_and_encrypted_components_go_together_in_their_order() -> None:
    modem = ComponentDescription(component=(b"\x01",), digest=bytes(32), size=9, uri="/fw/m", version="5.0.0")
    found = verified(replace(DESCRIPTION, further=(modem,)))
    assert [each.component for each in found.facts.components] == [MAIN, (b"\x01",), payload_component(MAIN)]
    result = lint(found, facts())
    assert result.refused is None
    assert result.fetched == ("/fw/sent", "/fw/m")


def test_lint_and_show_say_by_what_an_image_is_decrypted() -> None:
    result = lint(verified(DESCRIPTION), facts())
    assert (result.refused, result.fetched) == (None, ("/fw/sent",))
    (copied,) = [step.text for step in result.steps if "directive copy" in step.text]
    assert "decrypting by A128CTR, key kid-1 (A128KW)" in copied
    assert not [each for each in result.warnings if "digest" in each]
    shown = describe(build_manifest(DESCRIPTION))["components"][0]["encryption"]
    assert shown == {"source": 1, "algorithm": "A128CTR", "key_wrap": "A128KW", "key_ids": ["kid-1"]}


def test_a_device_that_knows_no_encrypted_payloads_refuses_the_manifest() -> None:
    plain = facts(components={MAIN: ComponentState(version="1.0.0")})
    refusal = lint(verified(DESCRIPTION), plain).refused
    assert refusal is not None
    assert refusal.code == "component-mismatch"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size": len(SENT) + 16}, "invalid"),
        ({"digest": b"short"}, "invalid"),
        ({"info": b"none"}, "malformed"),
        ({"info": structure(unprotected={1: 1, 5: EXAMPLE_IV})}, "unsupported"),
    ],
)
def test_no_manifest_is_made_with_a_payload_that_is_not_of_this_image(change: dict, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        build_manifest(replace(DESCRIPTION, encrypted=replace(HIDDEN, **change)))
    assert caught.value.field == "encrypted"
    if code != "invalid":
        assert caught.value.code == code
