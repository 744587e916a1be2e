"""Deltas over random images: each method gives the image back, and nothing but the image ever passes."""

import contextlib
import hashlib
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.deltas import Method, PatchError, Source, apply, create, verify
from lwm2m_server.firmware.deltas.moves import Segment, steps_of
from lwm2m_server.firmware.deltas.negotiation import (
    Description,
    Report,
    Wish,
    read_description,
    read_report,
    read_wish,
)
from lwm2m_server.firmware.deltas.references import branch_distance, encode_branch

QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
METHODS = list(Method)


@st.composite
def releases(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two images that share stretches: some moved, some changed, some new."""
    old = draw(st.binary(min_size=1, max_size=6000))
    seed = draw(st.integers(0, 2**32))
    chance = random.Random(seed)
    new = bytearray(old)
    for _ in range(draw(st.integers(0, 6))):
        at, length = chance.randrange(len(new) + 1), chance.randrange(400)
        match chance.randrange(4):
            case 0:
                new[at:at] = chance.randbytes(length)
            case 1:
                del new[at : at + length]
            case 2:
                new[at : at + length] = chance.randbytes(min(length, len(new) - at))
            case _:
                new[at:at] = old[:length]
    return old, bytes(new) or b"\0"


def result(method: Method, old: bytes, patch: bytes, size: int) -> bytes:
    out = bytearray()
    apply(method, Source.of(old), Source.of(patch), out.extend, size=size)
    return bytes(out)


@pytest.mark.parametrize("method", METHODS)
@given(pair=releases())
@QUIET
def test_a_patch_applied_to_its_base_gives_the_new_image(method: Method, pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    assert result(method, old, create(method, old, new), len(new)) == new


@pytest.mark.parametrize("method", METHODS)
@given(
    pair=releases(), place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), cut=st.booleans()
)
@QUIET
def test_a_damaged_patch_is_refused_or_shows_by_the_digest(
    method: Method, pair: tuple[bytes, bytes], place: float, change: int, cut: bool
) -> None:
    old, new = pair
    patch = bytearray(create(method, old, new))
    at = int(place * len(patch))
    if cut:
        del patch[at:]
    else:
        patch[at] ^= change
    digest = hashlib.sha256()
    try:
        apply(method, Source.of(old), Source.of(bytes(patch)), digest.update, size=len(new))
    except PatchError:
        return
    # What came through without an error is the image itself, or `verify` and the device see that it is not.
    if digest.digest() != hashlib.sha256(new).digest():
        with pytest.raises(PatchError):
            verify(method, old, bytes(patch), new)


@pytest.mark.parametrize("method", METHODS)
@given(noise=st.binary(max_size=300), size=st.integers(0, 4000))
@QUIET
def test_noise_is_no_patch_and_never_makes_more_than_the_image(
    method: Method, noise: bytes, size: int
) -> None:
    out = bytearray()
    with contextlib.suppress(PatchError):
        apply(method, Source.of(bytes(1000)), Source.of(noise), out.extend, size=size)
    assert len(out) <= size


@given(distance=st.integers(-(1 << 23), (1 << 23) - 1))
def test_a_branch_is_decoded_to_the_distance_that_it_was_encoded_with(distance: int) -> None:
    old = bytes((0, 0xF0, 0, 0xD0))
    encoded = encode_branch(2 * distance, old)
    assert encoded is not None
    assert branch_distance(encoded, 0) == 2 * distance


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500), st.integers(1, 100)), max_size=20))
def test_the_address_map_takes_each_place_from_the_longest_segment_over_it(
    raw: list[tuple[int, int, int]],
) -> None:
    segments = [Segment(old, new, length, 0) for old, new, length in raw]
    steps = steps_of(segments)
    assert [start for start, _ in steps] == sorted({start for start, _ in steps})
    for place in range(600):
        over = [each for each in segments if each.old <= place < each.old + each.length]
        if over:
            longest = max(each.length for each in over)
            shift = [value for start, value in steps if start <= place][-1]
            assert shift in {each.new - each.old for each in over if each.length == longest}


@given(
    base=st.binary(min_size=32, max_size=32),
    methods=st.lists(st.sampled_from([each.value for each in Method]), min_size=1, max_size=6),
    size=st.integers(1, 2**32 - 1),
)
def test_what_device_and_server_say_to_each_other_reads_back_the_same(
    base: bytes, methods: list[str], size: int
) -> None:
    wish = Wish(base, tuple(methods))
    assert read_wish(wish.query()) == wish
    report = Report(base, "digest-mismatch")
    assert read_report(report.query()) == report
    description = Description(methods[0], ("fw", base.hex()), size, base)
    assert read_description(description.encode()) == description


@given(st.binary(max_size=200))
def test_bytes_that_are_no_description_are_refused(noise: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        read_description(noise)


@given(st.lists(st.text(max_size=80), max_size=5))
def test_queries_from_anywhere_are_read_or_refused(query: list[str]) -> None:
    for read in (read_wish, read_report):
        with contextlib.suppress(InvalidInput):
            read(query)
