"""ESP-IDF applications, built after `esp_image_format.h`; esptool and espsecure run as programs beside us."""

import functools
import hashlib
import operator
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from firmware_files.mcuboot import private_pem

CODE = bytes(range(256)) * 4


def esp_app(
    *,
    version: str = "2.1.0",
    project: str = "pump",
    chip: int = 9,
    secure_version: int = 3,
    hashed: bool = True,
    code: bytes = CODE,
) -> bytes:
    """Build an application with two segments."""
    app = struct.pack(
        "<II8s32s32s16s16s32s32s80s",
        0xABCD5432,
        secure_version,
        b"",
        version.encode(),
        project.encode(),
        b"12:34:56",
        b"Nov 22 2026",
        b"v5.5.1",
        hashlib.sha256(b"elf").digest(),
        b"",
    )
    first = app + bytes(256)
    segments = [(0x3C000020, first), (0x40374000, code)]
    body = struct.pack(
        "<BBBBIB3sHBHH4sB", 0xE9, len(segments), 2, 0x20, 0x40375000, 0xEE, b"", chip, 0, 0, 99, b"", hashed
    )
    checksum = 0xEF
    for address, data in segments:
        body += struct.pack("<II", address, len(data)) + data
        checksum = functools.reduce(operator.xor, data, checksum)
    body += bytes(15 - len(body) % 16) + bytes([checksum])
    return body + hashlib.sha256(body).digest() if hashed else body


def esptool(program: str, *arguments: str) -> str:
    """Run `esptool` or `espsecure`; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def esp_signed(folder: Path, image: bytes, keys: Sequence[tuple[str, int]], *, version: int = 2) -> bytes:
    """Sign with `espsecure sign-data`."""
    (folder / "app.bin").write_bytes(image)
    files = []
    for kind, number in keys:
        files.append(folder / f"{kind}-{number}.pem")
        files[-1].write_bytes(private_pem(kind, number))
    # --keyfile takes all that follows up to the next option
    options = ["--version", str(version), "--output", str(folder / "signed.bin"), str(folder / "app.bin")]
    esptool("espsecure", "sign-data", "--keyfile", *map(str, files), *options)
    return (folder / "signed.bin").read_bytes()
