"""Deltas: an image sent as what is new in it (a transfer encoding, never a thing that is installed).

- `methods`: create, apply, verify, choose. `thumb` (ours), `bsdiff`, `detools_patches`, `whole`: one each.
- `in_place`: patches that rewrite the one slot of a device; `named`: as manifests name them.
- `references`, `moves`: what `thumb` predicts.
- `streams`: patches in pieces, in bounded memory.
- `negotiation`: how device and server agree on one.
"""

from lwm2m_server.firmware.deltas.methods import (
    DEFAULT_THRESHOLD,
    STREAMED,
    Candidate,
    Method,
    apply,
    choose,
    create,
    verify,
)
from lwm2m_server.firmware.deltas.streams import PatchError, Source

__all__ = [
    "DEFAULT_THRESHOLD",
    "STREAMED",
    "Candidate",
    "Method",
    "PatchError",
    "Source",
    "apply",
    "choose",
    "create",
    "verify",
]
