"""The decoder of in-place patches beside detools itself: the same image, and never another one that passes."""

import hashlib
import io
import random

import detools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lwm2m_server.firmware.deltas import PatchError, Source
from lwm2m_server.firmware.deltas.detools_patches import create_in_place
from lwm2m_server.firmware.deltas.in_place import apply, pieces, read_header
from lwm2m_server.firmware.deltas.streams import Output

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEGMENTS = st.sampled_from([256, 512, 1024])


@st.composite
def releases(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two images that share stretches, in code-like bytes that repeat."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    old = bytearray(chance.choices(range(draw(st.sampled_from([4, 256]))), k=chance.randrange(1, 6000)))
    new = bytearray(old)
    for _ in range(chance.randrange(6)):
        at, length = chance.randrange(len(new) + 1), chance.randrange(500)
        match chance.randrange(3):
            case 0:
                new[at:at] = chance.randbytes(length)
            case 1:
                del new[at : at + length]
            case _:
                new[at:at] = old[:length]
    return bytes(old), bytes(new) or b"\0"


def slot_size(old: bytes, new: bytes, segment: int, spare: int) -> int:
    return (-(-max(len(old), len(new)) // segment) + spare) * segment


def computed(old: bytes, patch: bytes, size: int) -> bytes:
    """The new image from the old one, which stays as it is."""
    made = bytearray()
    output = Output(made.extend, size)
    apply(Source.of(old), Source.of(patch), output)
    output.finish()
    return bytes(made)


def rewritten(old: bytes, patch: bytes) -> bytes:
    """The same by rewriting one memory, a segment as soon as it is whole."""
    header = read_header(Source.of(patch))
    memory = bytearray(old.ljust(header.memory_size, b"\xff"))
    memory[header.shift_size : header.shift_size + header.kept] = old[: header.kept]
    place, segment = 0, bytearray()
    for piece in pieces(Source.of(patch), lambda address, length: bytes(memory[address : address + length])):
        segment += piece
        if len(segment) == min(header.segment_size, header.to_size - place):
            memory[place : place + len(segment)] = segment
            place += len(segment)
            segment.clear()
    return bytes(memory[: header.to_size])


def by_detools(old: bytes, patch: bytes, size: int) -> bytes | None:
    memory = io.BytesIO(old.ljust(size, b"\xff"))
    try:
        made = detools.apply_patch_in_place(memory, io.BytesIO(patch))
    except Exception:  # noqa: BLE001  it says of no error that it raises it
        return None
    return memory.getvalue()[:made]


@given(pair=releases(), segment=SEGMENTS, spare=st.integers(2, 8))
@QUIET
def test_every_way_to_apply_a_patch_gives_the_image_that_detools_gives(
    pair: tuple[bytes, bytes], segment: int, spare: int
) -> None:
    old, new = pair
    size = slot_size(old, new, segment, spare)
    patch = create_in_place(old, new, memory_size=size, segment_size=segment)
    assert by_detools(old, patch, size) == new
    assert computed(old, patch, len(new)) == new
    assert rewritten(old, patch) == new


@given(pair=releases(), segment=SEGMENTS)
@QUIET
def test_a_slot_that_is_hardly_larger_than_the_image_serves_too(
    pair: tuple[bytes, bytes], segment: int
) -> None:
    old, new = pair
    patch = create_in_place(
        old, new, memory_size=max(slot_size(old, new, segment, 0), 2 * segment), segment_size=segment
    )
    assert computed(old, patch, len(new)) == rewritten(old, patch) == new


@given(
    pair=releases(),
    segment=SEGMENTS,
    place=st.floats(0, 1, exclude_max=True),
    change=st.integers(1, 255),
    how=st.sampled_from(["changed", "cut", "longer"]),
)
@QUIET
def test_a_damaged_patch_is_an_error_or_shows_by_the_digest_and_detools_sees_nothing_else(
    pair: tuple[bytes, bytes], segment: int, place: float, change: int, how: str
) -> None:
    old, new = pair
    size = slot_size(old, new, segment, 3)
    patch = bytearray(create_in_place(old, new, memory_size=size, segment_size=segment))
    at = int(place * len(patch))
    if how == "cut":
        del patch[at:]
    elif how == "longer":
        patch += bytes([change]) * 8
    else:
        patch[at] ^= change
    damaged = bytes(patch)
    try:
        made = computed(old, damaged, len(new))
    except PatchError:
        return
    assert rewritten(old, damaged) == made, "what was proven before is what is written"
    if made != new:
        assert hashlib.sha256(made).digest() != hashlib.sha256(new).digest()
    # detools also looks at the size of the memory before it begins.
    assert by_detools(old, damaged, size) in (made, None)


@given(noise=st.binary(max_size=300), old=st.binary(min_size=1, max_size=600))
@settings(max_examples=200, deadline=None)
def test_noise_is_no_patch(noise: bytes, old: bytes) -> None:
    with pytest.raises(PatchError):
        computed(old, noise, 400)
    with pytest.raises(PatchError):
        computed(old, b"\x14" + noise, 1 << 20)


@given(pair=releases(), segment=SEGMENTS)
@QUIET
def test_a_patch_on_another_base_is_an_error_or_makes_no_more_than_the_image(
    pair: tuple[bytes, bytes], segment: int
) -> None:
    old, new = pair
    patch = create_in_place(old, new, memory_size=slot_size(old, new, segment, 3), segment_size=segment)
    with pytest.raises(PatchError):
        computed(old + b"x", patch, len(new))
    try:
        made = computed(bytes(old[::-1]), patch, len(new))
    except PatchError:
        return
    assert len(made) == len(new)
