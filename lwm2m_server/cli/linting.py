"""`lwm2m manifest lint`: the device that the flags describe, and the steps for people and programs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import time

from lwm2m_server import versions
from lwm2m_server.cli.output import Output
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.effects import ComponentState, DeviceFacts, Room
from lwm2m_server.firmware.encryption import is_payload
from lwm2m_server.firmware.envelope import Verified, parse_envelope, read_unverified, verify
from lwm2m_server.firmware.facts import facts_of
from lwm2m_server.firmware.inplace import is_delta
from lwm2m_server.firmware.lint import Assumptions, LintResult
from lwm2m_server.firmware.plan import component_id
from lwm2m_server.firmware.suit import ComponentId, class_id, vendor_id
from lwm2m_server.firmware.trust import TrustAnchor


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The manifest and the device, as the flags say them."""

    envelope: bytes
    vendor: str
    device_class: str
    versions: Mapping[str, str]
    slots: Mapping[str, str]
    installed: Mapping[str, str]
    in_place: Mapping[str, str]
    sequence: int
    battery: int | None
    clock: bool
    authorizes: bool
    fails: Iterable[str]
    anchors: Iterable[TrustAnchor] | None

    def verified(self) -> Verified:
        """Verify with the keys that the device trusts; without any, take every signature for good."""
        if self.anchors is not None:
            return verify(self.envelope, self.anchors, now=time() if self.clock else None)
        manifest = read_unverified(self.envelope)
        payloads = dict(parse_envelope(self.envelope).payloads)
        return Verified(self.envelope, manifest, facts_of(manifest), b"", b"", (), payloads)

    def facts(self) -> DeviceFacts:
        """What the device is."""
        vendor = vendor_id(self.vendor.lower())
        known = {component_id(name): version for name, version in self.versions.items()}
        sizes = {component_id(name): _size(size) for name, size in self.slots.items()}
        manifest = read_unverified(self.envelope)
        listed = manifest.common.components
        present = dict(known) or dict.fromkeys(listed)
        rooms = {component_id(name): _room(text) for name, text in self.in_place.items()}
        # a device with a component also knows what is fetched to be decrypted, or applied, into it
        sent = (each for each in listed if is_payload(each) or is_delta(each))
        payloads = {each: None for each in sent if each[:-1] in present}
        for version in known.values():
            versions.parse(version)
        return DeviceFacts(
            vendor_ids=frozenset({vendor}),
            class_ids=frozenset({class_id(vendor, self.device_class)}),
            components={
                component: ComponentState(
                    version=version, capacity=sizes.get(component), in_place=rooms.get(component)
                )
                for component, version in (payloads | present).items()
            },
            sequence_number=self.sequence,
            now=time() if self.clock else None,
            battery=self.battery,
        )

    def assumptions(self) -> Assumptions:
        """What its components hold, and what its application says."""
        held: dict[ComponentId, bytes] = {
            component_id(name): _digest(text) for name, text in self.installed.items()
        }
        failing = frozenset(component_id(name, "fails") for name in self.fails)
        return Assumptions(held, failing, self.authorizes)


def show(out: Output, result: LintResult) -> None:
    """Print the steps, the end and the warnings."""
    refused = result.refused
    if out.as_json:
        out.record(
            {
                "accepted": refused is None,
                "code": None if refused is None else refused.code,
                "field": None if refused is None else refused.field,
                "text": None if refused is None else refused.message,
                "fetched": list(result.fetched),
                "invoked": result.invoked,
                "warnings": list(result.warnings),
                "steps": [
                    {
                        "sequence": step.sequence,
                        "component": step.component,
                        "depth": step.depth,
                        "step": step.text,
                        "outcome": step.outcome,
                    }
                    for step in result.steps
                ],
            }
        )
        return
    out.records(
        [
            {"sequence": step.sequence, "component": step.component, "step": "  " * step.depth + step.text,
             "outcome": step.outcome}
            for step in result.steps
        ],
        [(name, name) for name in ("sequence", "component", "step", "outcome")],
        empty="the device does nothing",
    )  # fmt: skip
    for warning in result.warnings:
        out.note(f"warning: {warning}")
    if refused is None:
        out.done("the device takes it")
    else:
        out.done(f"the device refuses it: {refused.code}, {refused.message}")


def _room(text: str) -> Room:
    memory, _, page = text.partition("/")
    if not (memory.isdecimal() and page.isdecimal() and int(page)):
        raise InvalidInput(f"'{text}' is no slot and page", field="in-place", hint="such as 00=65536/4096")
    return Room(int(memory), int(page))


def _size(text: str) -> int:
    if not text.isdecimal():
        raise InvalidInput(f"'{text}' is no number of bytes", field="slot-size")
    return int(text)


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise InvalidInput(f"'{text}' is no SHA-256", field="installed", hint="give 64 hex digits")
    return digest
