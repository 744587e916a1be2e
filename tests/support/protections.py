"""What devices and their firmware are protected from, where that is enforced, and which tests prove it.

A test says what it proves with `@pytest.mark.protection("server", "foreign-vendor")`: the side, and names from
`PROTECTIONS`. Of both docs/firmware.md has a table (`tests/support/doctables.py`); tests/unit/test_protections.py fails
when a side that enforces something has no test for it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]
SIDES = ("server", "device")


class Protection(NamedTuple):
    """What must not happen, and when the server and the device see to it; empty: not on that side."""

    against: str
    server: str = ""
    device: str = ""


_UPLOAD, _OFFER, _BOTH = "on upload", "before an offer", "on upload and before an offer"
_FETCH, _INSTALL, _BOOT, _ALWAYS = "before the fetch", "after the fetch", "before each start", "always"

PROTECTIONS = {
    "changed-manifest": Protection("a manifest that was changed after it was signed", _BOTH, _FETCH),
    "unknown-signer": Protection("a manifest that nobody trusted signed", _BOTH, _FETCH),
    "revoked-key": Protection("what a revoked key signed, also before it was revoked", _BOTH),
    "key-time": Protection("a signature outside of its key's time", _BOTH),
    "key-role": Protection("a key that signs what is not its role", _BOTH, _FETCH),
    "second-signature": Protection(
        "a manifest without the second signature that is asked for", _BOTH, _FETCH
    ),
    "private-key": Protection("a private key on the server", _UPLOAD),
    "foreign-vendor": Protection("an update for another vendor", _OFFER, _FETCH),
    "foreign-class": Protection("an update for another class of devices", _OFFER, _FETCH),
    "foreign-make": Protection("an image for another make or model, where the device can't tell", _OFFER),
    "wrong-component": Protection("an update for a component that the device does not have", _OFFER, _FETCH),
    "foreign-application": Protection("an application in the place of another one", _OFFER, _FETCH),
    "lost-application": Protection(
        "an application that is gone after an update that failed",
        "by its requests",
        "at every flash operation",
    ),
    "sequence": Protection("a manifest that is older by its sequence number", _BOTH, _FETCH),
    "older-version": Protection("an older version", _OFFER, _FETCH),
    "downgrade": Protection(
        "a downgrade that no operator approved", _BOTH, "before the fetch and each start"
    ),
    "precursor": Protection("an update that starts from other versions than those that run", "", _FETCH),
    "expired": Protection("a manifest whose time is over", _BOTH, _FETCH),
    "too-big": Protection("an image that does not fit", _OFFER, "before and during the fetch"),
    "unsupported": Protection("a command that is not understood", "", "before anything is done"),
    "battery": Protection("an update that outlives the battery", "", _FETCH),
    "consent": Protection("an update against the application's will", "the refusal counts", "twice"),
    "image-claims": Protection("an image that is not what the operator says", _UPLOAD),
    "image-signature": Protection("an image that its boot loader would not start", _UPLOAD),
    "changed-image": Protection("an image other than the manifest's", _UPLOAD, _INSTALL),
    "half-image": Protection("half an image, or bytes that rotted while they waited", _UPLOAD, _INSTALL),
    "changed-etag": Protection("an image put together from two", "", "during the fetch"),
    "stranger": Protection("an image in the hands of whom it was not offered to", "at each request"),
    "delta-base": Protection(
        "a delta from another image than the one that runs", "when it is asked for", _INSTALL
    ),
    "delta-result": Protection("a delta that makes another image", "before it is offered", _INSTALL),
    "encrypted-key": Protection("an encrypted image on a device without its key", _OFFER, _FETCH),
    "encrypted-bytes": Protection("an encrypted image that was changed", _UPLOAD, _INSTALL),
    "secrecy": Protection("the plain bytes of an encrypted image on the server", _ALWAYS),
    "damaged-at-boot": Protection("a damaged image that is started", "", _BOOT),
    "unauthorised-boot": Protection("an image that no trusted manifest names, started", "", _BOOT),
    "counter": Protection("an image below the counter, started", "", _BOOT),
    "trial": Protection("a new image that does not work", "told as failed", "the old one comes back"),
    "power-cut": Protection("a device without an image after a power cut", "", "at every flash operation"),
    "half-update": Protection(
        "some components of an update without the others", "", "at every flash operation"
    ),
    "lost-messages": Protection("an update that hangs by a lost, doubled or late message", _ALWAYS, _ALWAYS),
    "damaged-state": Protection("a device that stays away because its records are damaged", "", _BOOT),
    "evidence": Protection("a success that nobody saw", "after each installation"),
    "runaway": Protection("a campaign that goes on while devices fail", "after each outcome"),
}


class Proof(NamedTuple):
    """A test, and what its marker says."""

    file: Path
    test: str
    side: str
    names: tuple[str, ...]


def proofs() -> Iterator[Proof]:
    """Yield every marker in the tests, by file and line; also those of single parameters."""
    for file in sorted(TESTS.rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if "mark.protection" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in node.decorator_list:
                    yield from _marks(file, node.name, decorator)


def _marks(file: Path, test: str, decorator: ast.expr) -> Iterator[Proof]:
    for node in ast.walk(decorator):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.protection":
            side, *names = (ast.literal_eval(argument) for argument in node.args)
            yield Proof(file, test, side, tuple(names))


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield what is protected from, and for each side when it looks, with links to its tests."""
    found = list(proofs())
    for name, protection in PROTECTIONS.items():
        cells = [_cell(found, name, side, getattr(protection, side)) for side in SIDES]
        yield protection.against, cells[0], cells[1]


def _cell(found: list[Proof], name: str, side: str, when: str) -> str:
    tests = dict.fromkeys(
        (each.test, each.file) for each in found if each.side == side and name in each.names
    )
    links = (
        f"[{test.removeprefix('test_').replace('_', ' ')}](../{file.relative_to(TESTS.parent)})"
        for test, file in tests
    )
    return f"{when}: {'; '.join(links)}" if when else ""
