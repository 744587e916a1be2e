"""Deltas: what is chosen, what `thumb` gains over plain differences, and what in-place patches need."""

import random
import struct

import pytest

from lwm2m_server.firmware.deltas import Candidate, Method, PatchError, choose, create, verify
from lwm2m_server.firmware.deltas.detools_patches import create_in_place
from lwm2m_server.firmware.deltas.references import encode_branch, guess_memory

FLASH = 0x0800_8000


def program(functions: list[int], *, seed: int = 1) -> bytes:
    """Make an image of functions by their numbers: each calls three others, a table at the end points to all."""
    body = {
        number: random.Random(f"{seed}/{number}").randbytes(40).replace(b"\xf0", b"\x10")
        for number in functions
    }
    starts = {number: 256 + 52 * index for index, number in enumerate(functions)}
    image = bytearray(random.Random(seed).randbytes(256))
    for number in functions:
        for call in range(3):
            target = (number * 7 + call * 13) % 200
            branch = encode_branch(starts[target] - (len(image) + 4), bytes((0, 0xF0, 0, 0xD0)))
            assert branch is not None
            image += branch
        image += body[number]
    for number in functions:
        image += struct.pack("<I", FLASH + starts[number] + 1)
    return bytes(image)


def test_code_that_only_moved_costs_thumb_far_less_than_bsdiff() -> None:
    functions = list(range(200))
    old, new = program(functions), program([*functions[:50], 200, *functions[50:]])
    sizes = {method: len(create(method, old, new)) for method in (Method.THUMB, Method.BSDIFF)}
    assert sizes[Method.THUMB] * 2 < sizes[Method.BSDIFF]


def test_the_flash_address_is_guessed_from_the_pointers() -> None:
    memory = guess_memory(program(list(range(200))))
    assert memory.flash == FLASH


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize(
    ("old", "new"), [(b"", b"x"), (b"x", b""), (b"same" * 100, b"same" * 100), (b"", b"")]
)
def test_every_method_copes_with_images_that_are_empty_or_equal(
    method: Method, old: bytes, new: bytes
) -> None:
    verify(method, old, create(method, old, new), new)


def candidate(method: Method, size: int) -> Candidate:
    return Candidate(method, bytes([size % 251]) * 32, size)


ALL = [method.value for method in Method]


def test_the_smallest_patch_that_the_device_understands_is_chosen() -> None:
    offered = [candidate(Method.THUMB, 100), candidate(Method.BSDIFF, 200), candidate(Method.LZMA, 600)]
    assert choose(offered, size=1000, understood=ALL) == offered[0]
    assert choose(offered, size=1000, understood=["bsdiff", "lzma", "of-tomorrow"]) == offered[1]
    assert choose(offered, size=1000, understood=["of-tomorrow"]) is None


def test_a_patch_that_failed_on_the_device_is_not_chosen_again() -> None:
    offered = [candidate(Method.THUMB, 100), candidate(Method.BSDIFF, 200)]
    assert choose(offered, size=1000, understood=ALL, failed={offered[0].digest}) == offered[1]


@pytest.mark.parametrize(("size", "chosen"), [(700, True), (701, False)])
def test_a_patch_above_seventy_percent_gives_way_to_the_whole_image(size: int, chosen: bool) -> None:
    offered = candidate(Method.LZMA, size)
    assert (choose([offered], size=1000, understood=ALL) == offered) is chosen


@pytest.mark.protection("server", "delta-result")
def test_a_patch_that_gives_another_image_is_not_verified() -> None:
    patch = create(Method.LZMA, b"", b"one image")
    with pytest.raises(PatchError):
        verify(Method.LZMA, b"", patch, b"two image")


@pytest.mark.protection("device", "delta-base")
def test_a_patch_is_refused_on_a_base_of_another_size() -> None:
    patch = create(Method.THUMB, b"base" * 100, b"next" * 100)
    with pytest.raises(PatchError, match="is for 400 bytes"):
        verify(Method.THUMB, b"base" * 101, patch, b"next" * 100)


def test_a_slot_too_small_to_work_in_place_is_said() -> None:
    with pytest.raises(PatchError, match="slot of 1024 bytes"):
        create_in_place(bytes(4000), bytes(range(250)) * 16, memory_size=1024, segment_size=256)
