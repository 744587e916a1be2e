"""A whole server in virtual time over a network in memory; reference devices, and devices that follow a script."""

from memory.device import ScriptedDevice
from memory.reference import MemoryDevice
from memory.world import World

__all__ = ["MemoryDevice", "ScriptedDevice", "World"]
