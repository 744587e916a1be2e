"""Firmware: image formats, SUIT manifests and the update state machine.

Pure: no I/O, no clock, no randomness. Used by the server (builds, signs, verifies, drives updates) and by the
reference device (verifies, processes).

- `images`: digest, size, format and version of an image file.
- `build`, `envelope`, `describe`: make, sign, verify and show a SUIT envelope (draft-ietf-suit-manifest-37).
- `manifest`, `commands`, `suit`, `cose`, `cbor`: the layers below them.
- `processor`: what a device does with a verified manifest.
- `update`, `update_job`, `update_events`, `outcomes`: the machine that drives object 5 of one device.
- `refusals`: the stable codes with which a manifest or an image is refused.
"""
