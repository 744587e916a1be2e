"""What verifying costs: images of 10 MB once they are on the disk, digests, and the signatures of manifests.

CPU time of one thread. SHA-256 of the same bytes is measured beside an image: it is hashed while it arrives, and its
own hash, which its format demands, is a second pass. What a row says is beyond one pass. Beside signatures and digests
stands what `openssl speed` finds on the same core for the operation alone.
"""

import hashlib
import os
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.report import OURS
from bench.scenarios import Measurement
from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.envelope import sign, verify
from lwm2m_server.firmware.formats.keys import ImageKey
from lwm2m_server.firmware.images import inspect
from lwm2m_server.firmware.keys import KeyType, SigningKey

SIZE = 10_000_000
ROUNDS = 15
AIM = 50_000
"""Microseconds for an image of this size, beyond hashing."""

_MEGABYTE = 1_000_000
_MESSAGE = bytes(200)  # about what a COSE Sig_structure has
_AT_A_TIME = 100


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


def _row(who: str, seconds: float, note: str, work: str = "image of 10 MB") -> Measurement:
    return Measurement(work, who, ROUNDS, seconds * 1e6, 1 / seconds, 0.0, 0.0, 0.0, 0, note)


def measure() -> list[Measurement]:
    """Return the rows of images, of digests and of signatures."""
    return [*_images(), *_digests(), *_signatures()]


def _signatures() -> list[Measurement]:
    """Return a row for each algorithm alone, and for a whole manifest: parsed, verified, and all its facts read."""
    rows = []
    description = ManifestDescription(
        vendor_domain="acme.example",
        class_name="meter",
        version="2.0.0",
        sequence_number=7,
        image_digest=bytes(32),
        image_size=SIZE,
        image_uri="/fw/image",
        manufacturer="Acme",
        model="M1",
    )
    for kind, peer in (
        (KeyType.ESP256, "ecdsap256"),
        (KeyType.ED25519, "ed25519"),
        (KeyType.ML_DSA_44, ""),
    ):
        key = SigningKey.generate(kind)
        signature, envelope = key.sign(_MESSAGE), sign(build_manifest(description), key)

        def alone(key: SigningKey = key, signature: bytes = signature) -> None:
            for _ in range(_AT_A_TIME):
                assert key.public.holds(signature, _MESSAGE)

        def whole(key: SigningKey = key, envelope: bytes = envelope) -> None:
            for _ in range(_AT_A_TIME):
                verify(envelope, [key.public])

        work = f"signature, {kind.value}"
        rows.append(_row(OURS, _best(alone) / _AT_A_TIME, "verified", work))
        rows.append(_row(OURS, _best(whole) / _AT_A_TIME, "a whole manifest", f"manifest, {kind.value}"))
        rate = _openssl(peer) if peer else None
        if rate is not None:
            rows.append(_row("OpenSSL", 1 / rate, "verified", work))
    return rows


def _digests() -> list[Measurement]:
    """Return a row for SHA-256 and for the CRC that records in flash have."""
    data = os.urandom(_MEGABYTE)
    rows = [
        _row(OURS, _best(lambda: hashlib.sha256(data).digest()), "hashlib", "SHA-256 of 1 MB"),
        _row(OURS, _best(lambda: zlib.crc32(data)), "zlib", "CRC-32 of 1 MB"),
    ]
    rate = _openssl("-bytes", str(_MEGABYTE), "sha256")
    if rate is not None:
        rows.append(_row("OpenSSL", _MEGABYTE / rate, "", "SHA-256 of 1 MB"))
    return rows


def _openssl(*what: str) -> float | None:
    """Return the last figure of `openssl speed`: verifications, or bytes, a second; None without the program."""
    try:
        done = subprocess.run(
            ["openssl", "speed", "-seconds", "1", "-mr", *what], capture_output=True, text=True, check=True
        )
        return float(done.stdout.split()[-1].rpartition(":")[2])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None


def _images() -> list[Measurement]:
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
            rows.append(_row(OURS, whole - hashing, f"{name}: verified, beyond hashing (aim: {AIM})"))
            rows.append(_row("OpenSSL", hashing, f"{name}: SHA-256 alone"))
    return rows
