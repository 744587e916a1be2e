"""JSON from devices: bounded, without duplicate members, infinities or numbers that only Python takes."""

import json

from lwm2m_server.lwm2m.values import CodecError


def load_json(payload: bytes) -> object:
    """Read one JSON text in UTF-8; raises CodecError. The size of the payload is the caller's bound."""
    try:
        return json.loads(payload.decode(), parse_constant=_refuse, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise CodecError(f"The JSON is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise CodecError(
            f"The JSON breaks at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except (RecursionError, ValueError) as error:
        # The decoder stops at the interpreter's depth; integers of thousands of digits are a ValueError.
        raise CodecError(
            f"The JSON can't be taken: {'too deep' if isinstance(error, RecursionError) else error}"
        ) from None


def write_json(value: object) -> bytes:
    """Write compact JSON in UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")
    return found
