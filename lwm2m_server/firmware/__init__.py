"""Firmware: image formats, SUIT manifests and the update state machine.

Pure: no I/O, no clock, no randomness. Used by the server (builds, signs, verifies, drives updates) and by the
reference device (verifies, processes).

- `images`: digest, size, format and version of an image file.
- `plan`, `description`, `build`: from what an operator says to a SUIT envelope (draft-ietf-suit-manifest-37).
- `envelope`, `describe`, `lint`: sign, verify and show it, and what a device would do with it.
- `keys`, `cose`, `trust`: signatures, and whose count.
- `manifest`, `commands`, `parameters`, `suit`, `suit_versions`, `cbor`: the layers below them.
- `preflight`, `processor`, `conditions`, `effects`: what a device does with a verified manifest.
- `update`, `update_job`, `update_events`, `outcomes`: the machine that drives object 5 of one device.
- `refusals`: the stable codes with which a manifest or an image is refused.
"""
