"""Which content format to ask of, and to send to, one device (Core TS 7.4.1 and experience).

A frozen value that the service stores beside the device: the order of formats to try, the one that worked,
those that were refused. Answers move it on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lwm2m_server.lwm2m.formats import SINGLE_VALUE, ContentFormat
from lwm2m_server.lwm2m.model import Model, ResourceType
from lwm2m_server.lwm2m.paths import Path

_MODERN = (ContentFormat.SENML_CBOR, ContentFormat.SENML_JSON, ContentFormat.TLV, ContentFormat.TEXT)
_FIRST = (ContentFormat.TLV, ContentFormat.TEXT)
_WRITABLE = frozenset(ContentFormat) - {
    ContentFormat.LINK_FORMAT,
    ContentFormat.JSON,
    ContentFormat.LEGACY_JSON,
}
_NOT_ACCEPTABLE, _UNSUPPORTED_FORMAT, _SERVER_ERROR = 134, 143, 160


@dataclass(frozen=True, slots=True)
class Negotiation:
    """What is known of a device's formats, best first; `composite` is None until one was tried."""

    order: tuple[int, ...]
    worked: int | None = None
    refused: tuple[int, ...] = ()
    composite: bool | None = None

    @classmethod
    def initial(cls, lwm2m_version: str, content_formats: Sequence[int] = ()) -> "Negotiation":
        """Begin with the LwM2M version's formats; those that the root link's `ct` names go first."""
        known = _FIRST if lwm2m_version == "1.0" else _MODERN
        named = [each for each in (*_MODERN, ContentFormat.LEGACY_TLV) if each in content_formats]
        return cls(tuple(int(each) for each in (*named, *(other for other in known if other not in named))))

    def accept(self, path: Path, model: Model | None = None) -> int | None:
        """Return the Accept option for a read of `path`; None: send none and decode what comes."""
        single = _is_single(path, model)
        candidates = [each for each in self._candidates() if single or each not in SINGLE_VALUE]
        return candidates[0] if candidates else None

    def write_format(self, path: Path, model: Model | None = None) -> int:
        """Return the format for a write to `path`.

        One value goes as opaque or text, which every client takes, until they are refused; several as TLV or
        SenML.
        """
        candidates = [each for each in self._candidates() if each in _WRITABLE and each not in SINGLE_VALUE]
        fallback = int(ContentFormat.TLV)
        if _is_single(path, model):
            definition = model.resource(path) if model is not None else None
            opaque = definition is not None and definition.type is ResourceType.OPAQUE
            simple = int(ContentFormat.OPAQUE if opaque else ContentFormat.TEXT)
            if simple not in self.refused:
                return simple
        return candidates[0] if candidates else fallback

    def after(self, content_format: int | None, code: int) -> "Negotiation":
        """Learn from an answer to a request that had this Accept or Content-Format.

        2.xx remembers the format; 4.06, 4.15 and 5.00 (a client's answer to an Accept it can't serve) move on
        to the next one. Ask `accept` or `write_format` again, while the value changes.
        """
        if content_format is None:
            return self
        if 64 <= code < 96:
            if content_format in SINGLE_VALUE:
                return self
            return replace(self, worked=content_format, refused=self._without(content_format))
        if (
            code in {_NOT_ACCEPTABLE, _UNSUPPORTED_FORMAT, _SERVER_ERROR}
            and content_format not in self.refused
        ):
            worked = None if self.worked == content_format else self.worked
            return replace(self, worked=worked, refused=(*self.refused, content_format))
        return self

    def with_composite(self, works: bool) -> "Negotiation":
        """Remember whether the device answers composite operations; silence is a no."""
        return replace(self, composite=works)

    def to_json(self) -> dict[str, object]:
        """Return a JSON object that `from_json` takes."""
        return {
            "order": list(self.order),
            "worked": self.worked,
            "refused": list(self.refused),
            "composite": self.composite,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Negotiation":
        """Read what `to_json` wrote; raises ValueError on anything else."""
        match data:
            case {
                "order": list(order),
                "worked": None | int() as worked,
                "refused": list(refused),
                **rest,
            } if all(isinstance(each, int) for each in (*order, *refused)):
                composite = rest.get("composite")
                if composite is None or isinstance(composite, bool):
                    return cls(tuple(order), worked, tuple(refused), composite)
        raise ValueError("not a stored negotiation")

    def _candidates(self) -> list[int]:
        left = [each for each in self.order if each not in self.refused]
        if self.worked in left:
            left.sort(key=lambda each: each != self.worked)
        return left

    def _without(self, content_format: int) -> tuple[int, ...]:
        return tuple(each for each in self.refused if each != content_format)


def _is_single(path: Path, model: Model | None) -> bool:
    if path.depth == 4:
        return True
    definition = model.resource(path) if model is not None else None
    return path.depth == 3 and not (definition is not None and definition.multiple)
