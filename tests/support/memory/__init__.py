"""A whole server in virtual time over a network in memory, and devices that do what a test scripts them to do."""

from memory.device import ScriptedDevice
from memory.world import World

__all__ = ["ScriptedDevice", "World"]
