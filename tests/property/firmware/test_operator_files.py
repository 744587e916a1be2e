"""Files of operators: any plan, requirement and key is read or refused by one named error with its field."""

import hashlib
from collections.abc import Callable

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.build import build_manifest
from lwm2m_server.firmware.encryption import read_class_key
from lwm2m_server.firmware.key_agreement import read_private, read_public
from lwm2m_server.firmware.keys import KeyType, SigningKey, VerificationKey
from lwm2m_server.firmware.plan import PlannedImage, read_plan
from lwm2m_server.firmware.suit_versions import requirements

GOOD = {
    "vendor": "acme.example",
    "class": "meter-v2",
    "version": "2.1.0",
    "sequence": 8,
    "text": {"en": "Better clocks", "de": "Bessere Uhren"},
    "use_before": "2027-01-01T00:00:00Z",
    "minimum_battery": 500,
    "authorize": 0,
    "downgrade": False,
    "sever": ["text"],
    "components": [
        {"image": "main.bin", "requires": ">= 1.5, < 3.0"},
        {"id": "modem", "image": "modem.bin", "version": "5.1.0", "integrated": True},
    ],
}
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=10)
    | st.dates()
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)
PEM = SigningKey.generate().public.pem()
PRIVATE_PEM = SigningKey.generate().pem()


def image(name: str, field: str) -> PlannedImage:
    content = name.encode()
    return PlannedImage(hashlib.sha256(content).digest(), len(content) or 1, None, lambda: content)


def field_of(read: Callable[[], object]) -> str | None:
    """Return the field of the refusal, None without one; any other exception ends the test."""
    try:
        read()
    except InvalidInput as error:
        return error.field or "no field"
    return None


def planned(plan: object) -> None:
    """Read and build."""
    assert field_of(lambda: build_manifest(read_plan(plan, image))) != "no field"


def test_the_plan_that_is_changed_here_is_good() -> None:
    assert build_manifest(read_plan(GOOD, image))


@given(ANY)
def test_any_value_is_a_plan_or_one_named_error(value: object) -> None:
    planned(value)


@given(st.sampled_from([*GOOD, "reference_uri", "install", "language", "manufacturer", "model"]), ANY)
def test_any_value_of_a_member_is_taken_or_refused(name: str, value: object) -> None:
    planned({**GOOD, name: value})


@given(
    st.sampled_from(["id", "image", "uri", "version", "integrated", "requires", "encrypted", "in_place"]), ANY
)
def test_any_value_in_a_component_is_taken_or_refused(name: str, value: object) -> None:
    first, second = GOOD["components"]
    planned({**GOOD, "components": [first, {**second, name: value}]})


@given(st.integers(0, 400), st.text(max_size=6))
def test_a_mutated_file_is_a_plan_or_one_named_error(at: int, text: str) -> None:
    source = yaml.safe_dump(GOOD)
    try:
        value = yaml.safe_load(source[:at] + text + source[at:])
    except (yaml.YAMLError, ValueError):
        return
    planned(value)


@given(
    st.text(max_size=40)
    | st.from_regex(r"[<>=]{1,2} ?[0-9]{1,25}(\.[0-9]{1,9}){0,4}(-[a-z]+)?", fullmatch=True)
)
@example("> 1." + "9" * 400)
def test_any_text_is_a_requirement_or_one_named_error(text: str) -> None:
    assert field_of(lambda: requirements(text)) != "no field"


def damaged(document: bytes, at: int, byte: int) -> bytes:
    changed = bytearray(document)
    changed[at % len(changed)] = byte
    return bytes(changed)


@pytest.mark.parametrize(
    "read",
    [
        lambda content: read_class_key(content, "key"),
        lambda content: read_public(content, "key"),
        lambda content: read_private(content, "key"),
        lambda content: VerificationKey.from_pem(content, field="key"),
        lambda content: SigningKey.from_pem(content, field="key"),
        lambda content: SigningKey.from_pem(content, b"secret", field="key"),
    ],
    ids=["class-key", "class-public", "class-private", "verification", "signing", "signing-locked"],
)
@given(st.binary(max_size=300), st.integers(0, 2000), st.integers(0, 255))
def test_any_bytes_are_a_key_or_one_named_error(
    read: Callable[[bytes], object], noise: bytes, at: int, byte: int
) -> None:
    framed = b"-----BEGIN PRIVATE KEY-----\n" + noise + b"\n-----END PRIVATE KEY-----\n"
    for content in (noise, framed, damaged(PEM, at, byte), damaged(PRIVATE_PEM, at, byte)):
        assert field_of(lambda content=content: read(content)) in {None, "key"}


@pytest.mark.parametrize("kind", list(KeyType))
def test_the_keys_that_are_changed_here_are_good(kind: KeyType) -> None:
    key = SigningKey.generate(kind)
    assert VerificationKey.from_pem(key.public.pem()) == key.public
    assert SigningKey.from_pem(key.pem()).public == key.public
