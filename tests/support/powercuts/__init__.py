"""Power cuts: a device on a small flash, its life with a server in one function, and every place to cut it."""

from powercuts.bench import LAYOUT, NEW, OLD, Bench, envelope_for, judge_envelope
from powercuts.explore import Cut, Explorer, Recorder
from powercuts.invariants import Seen, Sight, check_invariants
from powercuts.life import Life

__all__ = [
    "LAYOUT",
    "NEW",
    "OLD",
    "Bench",
    "Cut",
    "Explorer",
    "Life",
    "Recorder",
    "Seen",
    "Sight",
    "check_invariants",
    "envelope_for",
    "judge_envelope",
]
