"""Real processes for tests: the server, devices, releases, and a link that loses packets.

Nothing here sleeps for a guess: waiting means reading the server's event stream or a process's output until
something is true, with a deadline that only a broken product reaches.
"""

from harness.devices import LeshanDevice, ReferenceDevice
from harness.keys import DeviceKeys, Pki, ServerKeys
from harness.link import LossyLink
from harness.releases import Release, Signer, image_of
from harness.server import Server

__all__ = [
    "DeviceKeys",
    "LeshanDevice",
    "LossyLink",
    "Pki",
    "ReferenceDevice",
    "Release",
    "Server",
    "ServerKeys",
    "Signer",
    "image_of",
]
