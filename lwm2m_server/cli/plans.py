"""What `manifest create` is told, by a YAML file and by flags, as the mapping that `firmware.plan` reads."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs say nothing that is used here

from lwm2m_server.cli.output import Output
from lwm2m_server.cli.session import read_file, unreadable
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.images import inspect
from lwm2m_server.firmware.plan import PlannedImage


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # untyped
    """Refuses a key that is there twice, which YAML libraries pass over in silence."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping of unique keys."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is there twice", node.start_mark
                )
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return found


def load_plan(file: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping."""
    try:
        # _Loader is a SafeLoader: it makes plain values only
        plan = yaml.load(read_file(file, "from"), Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where is not None else ""
        said = getattr(error, "problem", None) or "it can't be read"
        raise InvalidInput(f"{file} is no YAML{line}: {said}", field="from") from None
    if not isinstance(plan, dict):
        raise InvalidInput(f"{file} must hold a mapping", field="from")
    return plan


def with_flags(
    plan: dict[str, Any],
    flags: Mapping[str, Any],
    *,
    image: Path | None,
    component: Mapping[str, Any],
    further: list[str],
) -> dict[str, Any]:
    """Put what flags say over what the file says; `component` is said of the first component.

    Flags name files from where the command runs, a YAML file from where it lies.
    """
    merged = plan | {name: value for name, value in flags.items() if value not in (None, [], False)}
    listed = merged.get("components")
    components: list[Any] = list(listed) if isinstance(listed, list) else []
    said = {
        name: str(value.absolute()) if isinstance(value, Path) else value
        for name, value in component.items()
        if value not in (None, "", False)
    }
    if image is not None:
        said["image"] = str(image.absolute())
    if said:
        first = components[0] if components else {}
        if not isinstance(first, dict):
            raise InvalidInput("components/0 must be a mapping", field="components/0")
        components[:1] = [first | said]
    for text in further:
        identifier, equals, rest = text.partition("=")
        name, at, version = rest.partition("@")
        if not equals or not name:
            raise InvalidInput(
                f"'{text}' names no component and image", field="with", hint="such as modem=modem.bin@5.1.0"
            )
        found = {"id": identifier, "image": str(Path(name).absolute())}
        components.append(found | ({"version": version} if at else {}))
    merged["components"] = components
    return merged


def in_place(images: list[Path], slot_size: int | None, segment_size: int | None) -> dict[str, Any] | None:
    """Return what flags say of deltas in place; None when they say nothing."""
    said = {
        "from": [str(image.absolute()) for image in images],
        "slot_size": slot_size,
        "segment_size": segment_size,
    }
    return {name: value for name, value in said.items() if value} or None


class Reader:
    """Reads images of a plan; names are relative to the plan's folder."""

    def __init__(self, out: Output, folder: Path) -> None:
        self._out = out
        self._folder = folder

    def __call__(self, name: str, field: str) -> PlannedImage:
        """Read one."""
        path = self._folder / name
        try:
            info = inspect(path)
        except OSError as error:
            raise unreadable(path, field, error) from None
        if info.hint is not None:
            self._out.note(f"warning: {path}: {info.hint}")
        return PlannedImage(info.digest, info.size, info.version, lambda: read_file(path, field))
