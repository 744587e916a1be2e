"""Writes a kit: images, signed manifests, the public key to trust, and the scenarios as JSON.

The private key is made for the kit and forgotten: whoever has the kit can replay it, not extend it.
"""

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from conformance.scenarios import FORMAT, Sizes, all_scenarios
from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.cose import SigningKey
from lwm2m_server.firmware.deltas.named import make_named
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.firmware.inplace import NamedDelta

VENDOR, CLASS = "conformance.example", "kit"
OLD, NEW = "1.0.0", "2.0.0"
SEGMENT = 4096


def write_kit(folder: Path, *, size: int, datagrams: int, operations: int, seed: int) -> int:
    """Write a kit into an empty or new folder and return how many scenarios are in it."""
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    key, stranger = SigningKey.generate(), SigningKey.generate()
    image = _image(NEW, size, seed)
    (folder / "trust.pem").write_bytes(key.public.pem())
    (packages / "new.bin").write_bytes(image)
    (packages / "other.bin").write_bytes(_image(NEW, size, seed + 1))
    old = _image(OLD, size - 1000, seed)
    slot = (-(-size // SEGMENT) + 4) * SEGMENT
    delta = replace(make_named(old, image, slot_size=slot, segment_size=SEGMENT), uri="/delta")
    (packages / "old.bin").write_bytes(old)
    (packages / "old-to-new.delta").write_bytes(delta.content)
    for name, envelope in _envelopes(image, delta, key, stranger).items():
        (packages / f"{name}.suit").write_bytes(envelope)
    staging = -(-delta.size // SEGMENT) * SEGMENT
    found = all_scenarios(Sizes(size, datagrams, operations, slot, staging, SEGMENT), seed)
    scenarios = folder / "scenarios"
    scenarios.mkdir(exist_ok=True)
    for scenario in found:
        (scenarios / f"{scenario['id']}.json").write_text(json.dumps(scenario, indent=2) + "\n")
    about = {
        "format": FORMAT,
        "vendor": VENDOR,
        "class": CLASS,
        "old_version": OLD,
        "new_version": NEW,
        "image_size": size,
        "seed": seed,
    }
    (folder / "kit.json").write_text(json.dumps(about, indent=2) + "\n")
    return len(found)


def _image(version: str, size: int, seed: int) -> bytes:
    head = f"firmware-version: {version}\n".encode()
    return head + random.Random(seed).randbytes(size - len(head))


def _envelopes(image: bytes, delta: NamedDelta, key: SigningKey, stranger: SigningKey) -> dict[str, bytes]:
    def manifest(signer: SigningKey = key, **changes: Any) -> bytes:
        given: dict[str, Any] = {
            "vendor_domain": VENDOR,
            "class_name": CLASS,
            "version": NEW,
            "sequence_number": 2,
            "image_digest": hashlib.sha256(image).digest(),
            "image_size": len(image),
            "image_uri": "/image",
            **changes,
        }
        return sign(build_manifest(ManifestDescription(**given)), signer)

    genuine = manifest()
    changed = bytearray(genuine)
    changed[genuine.index(hashlib.sha256(image).digest())] ^= 1
    return {
        "genuine": genuine,
        "in-place": manifest(deltas=(delta,)),
        "foreign-vendor": manifest(vendor_domain="other.example"),
        "foreign-class": manifest(class_name="other"),
        "unknown-signer": manifest(stranger),
        "changed": bytes(changed),
        "truncated": genuine[:-1],
        "older": manifest(version="0.9.0"),
        "other-digest": manifest(image_digest=hashlib.sha256(image + b"x").digest()),
        "shorter": manifest(image_size=len(image) - 1),
    }
