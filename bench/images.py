"""What the server does with an image of 10 MB once it is on the disk: format, hash, checksum, signature.

CPU time of one thread; SHA-256 of the same bytes is measured beside it. An image is hashed while it arrives; its own
hash, which its format demands, is a second pass. What a row says is beyond one pass.
"""

import hashlib
import os
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.report import OURS
from bench.scenarios import Measurement
from lwm2m_server.firmware.formats.keys import ImageKey
from lwm2m_server.firmware.images import inspect

SIZE = 10_000_000
ROUNDS = 15


def _mcuboot(payload: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    body = struct.pack("<IIHHIIBBHII", 0x96F3B83D, 0, 32, 0, len(payload), 0, 1, 2, 3, 0, 0) + payload
    entries = b"".join(
        struct.pack("<HH", kind, len(value)) + value
        for kind, value in (
            (0x10, hashlib.sha256(body).digest()),
            (0x22, key.sign(body, ec.ECDSA(hashes.SHA256()))),
        )
    )
    return body + struct.pack("<HH", 0x6907, 4 + len(entries)) + entries


def _esp_idf(payload: bytes) -> bytes:
    data = struct.pack("<II248x", 0xABCD5432, 1) + payload
    head = struct.pack("<BB22xII", 0xE9, 1, 0x3C000020, len(data))
    head = head[:23] + b"\1" + head[24:]
    folded = int.from_bytes(data[: len(data) // 4 * 4], "little")
    width = len(data) // 4 * 4
    while width > 1:  # halves, the odd byte apart
        odd, width = width % 2, width // 2
        last = folded >> (16 * width) if odd else 0
        folded = ((folded >> (8 * width)) & ((1 << 8 * width) - 1)) ^ (folded & ((1 << 8 * width) - 1)) ^ last
    body = head + data
    body += bytes(15 - len(body) % 16) + bytes([folded ^ 0xEF])
    return body + hashlib.sha256(body).digest()


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


def _row(who: str, seconds: float, note: str) -> Measurement:
    return Measurement("image of 10 MB", who, ROUNDS, seconds * 1e6, 1 / seconds, 0.0, 0.0, 0.0, 0, note)


def measure() -> list[Measurement]:
    """Return a row for each format: the whole check less one SHA-256 of the file."""
    payload = os.urandom(SIZE)
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    keys = [ImageKey.from_pem(public)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, image in (
            ("MCUboot, ECDSA P-256", _mcuboot(payload, private)),
            ("ESP-IDF", _esp_idf(payload[: SIZE // 4 * 4])),
        ):
            file = Path(folder) / "image.bin"
            file.write_bytes(image)
            info = inspect(file, keys)
            assert info.facts.content_checked, name
            view = memoryview(image)
            hashing = _best(lambda view=view: hashlib.sha256(view).digest())
            whole = _best(lambda file=file, digest=info.digest: inspect(file, keys, digest=digest))
            rows.append(_row(OURS, whole - hashing, f"{name}: verified, beyond hashing"))
            rows.append(_row("OpenSSL", hashing, f"{name}: SHA-256 alone"))
    return rows
