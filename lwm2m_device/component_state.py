"""What the device knows of its components, and of an installation of several: one record with their states.

All of it changes together, so that a power cut leaves the states of all instances, the installed banks and the
plan of installation either as they were or as they are to be. The record is CBOR; `update_state` keeps it.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

TEXT_LIMIT = 255
"""Bytes of a text in the record, and of Refusal Text (42800/0/5)."""
_NUMBER = 1 << 32


class Phase(IntEnum):
    """How far an installation has come with one component."""

    PENDING = 0  # as before
    STARTED = 1  # its hook was called, or the boot loader was told: what runs there is not known
    DONE = 2  # the new image is in place; of the main component: it runs on trial and has reached the server
    RESTORING = 3  # given up; the image before is on its way back
    RESTORED = 4  # the image before is in place
    LOST = 5  # neither image could be brought in place


SETTLED = frozenset({Phase.DONE, Phase.RESTORED, Phase.LOST})


@dataclass(frozen=True)
class Entry:
    """One component of a plan, by its instance.

    `soft`: its failure is no failure of the others. `attempts` counts how often the present phase was begun,
    `text` says why it failed.
    """

    instance: int
    soft: bool = False
    phase: Phase = Phase.PENDING
    attempts: int = 0
    text: str = ""


@dataclass(frozen=True)
class Plan:
    """An installation under way: its components in their order, and all instances whose State it changes.

    `undoing`: it has failed with `code` and `text`, and what was installed is being taken back.
    """

    entries: tuple[Entry, ...]
    instances: tuple[int, ...]
    undoing: bool = False
    code: str = ""
    text: str = ""

    def entry(self, instance: int) -> Entry | None:
        """Return the entry of an instance, None when nothing is installed there."""
        return next((each for each in self.entries if each.instance == instance), None)

    def with_entry(self, entry: Entry) -> "Plan":
        """Return the plan with this entry in place of the one for the same instance."""
        return replace(
            self,
            entries=tuple(entry if each.instance == entry.instance else each for each in self.entries),
        )

    def encode(self) -> list[Any]:
        """Return plain values."""
        entries = [
            [each.instance, each.soft, int(each.phase), each.attempts, each.text] for each in self.entries
        ]
        return [entries, list(self.instances), self.undoing, self.code, self.text]


@dataclass(frozen=True)
class Bank:
    """Which bank (0, 1) of a component holds its installed image; `lost`: what runs there is not known."""

    installed: int = 0
    lost: bool = False


def decode_plan(value: Any, instances: int) -> Plan | None:
    """Return the plan of these plain values; raises ValueError. `instances` is how many there are."""
    if value is None:
        return None
    entries, concerned, undoing, code, text = _list(value, 5)
    plan = Plan(
        tuple(_entry(each, instances) for each in _list(entries)),
        tuple(_number(each, instances) for each in _list(concerned)),
        _bool(undoing),
        _text(code),
        _text(text),
    )
    if not plan.entries:
        raise ValueError("a plan without entries")
    return plan


def decode_bank(value: Any) -> Bank:
    """Return the bank of these plain values; raises ValueError."""
    installed, lost = _list(value, 2)
    return Bank(_number(installed, 2), _bool(lost))


def short(text: str) -> str:
    """Make one line of a text that fits."""
    return " ".join(text.split()).encode(errors="replace")[:TEXT_LIMIT].decode(errors="ignore")


def _entry(value: Any, instances: int) -> Entry:
    instance, soft, phase, attempts, text = _list(value, 5)
    return Entry(
        _number(instance, instances), _bool(soft), Phase(_number(phase)), _number(attempts), _text(text)
    )


def _list(value: Any, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or length not in (None, len(value)):
        raise ValueError(value)
    return value


def _number(value: Any, limit: int = _NUMBER) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError(value)
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)  # noqa: TRY004  one error for all that the record may hold
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)  # noqa: TRY004  one error for all that the record may hold
    return value
