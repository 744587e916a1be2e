"""The tables in the documentation that stand in the code already, so that both say the same.

A block between `<!-- table: NAME -->` and `<!-- end -->` is the rendering of that table. `python
tests/support/doctables.py` writes all blocks anew; tests/unit/test_docs.py fails while one is out of step.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer.main
from fastapi.routing import APIRoute
from pydantic import BaseModel

from lwm2m_device import cli as device_cli
from lwm2m_server import config
from lwm2m_server.api import dependencies, problems, routes
from lwm2m_server.api.routes import health
from lwm2m_server.campaigns.machine import CAMPAIGN_TABLE
from lwm2m_server.campaigns.reasons import REASONS
from lwm2m_server.cli import exits
from lwm2m_server.cli.commands import app
from lwm2m_server.devices.attributes import BUILT_IN
from lwm2m_server.firmware.formats.refused import MEANING
from lwm2m_server.firmware.outcomes import BY_RESULT, Outcome
from lwm2m_server.firmware.refusals import FINAL, UPDATE_RESULT
from lwm2m_server.firmware.software_results import BY_SOFTWARE_RESULT
from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.services import security_log
from lwm2m_server.services.uploads import UPLOAD_REFUSALS
from protections import rows as protections

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def documents() -> list[Path]:
    """Every Markdown file of the project."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docker/*.md")])


def renewed(text: str) -> str:
    """Return a document with its blocks rendered anew."""
    return BLOCK.sub(lambda match: match[1] + TABLES[match["name"]]() + match[3], text)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def quoted(value: Any) -> str:
    return f"`{value}`"


def commands(root: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below `root` with its path."""
    if hasattr(root, "commands"):
        for name, command in root.commands.items():
            yield from commands(command, (*path, name))
    else:
        yield path, root


def programs() -> dict[str, Any]:
    """The programs of the distribution, as their command lines are parsed."""
    return {
        "lwm2m": typer.main.get_command(app),
        "lwm2m-device": typer.main.get_command(device_cli.app),
    }


def _parameters(command: Any, kind: str) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == kind]


def _usage(path: tuple[str, ...], command: Any) -> str:
    arguments = []
    for argument in _parameters(command, "argument"):
        name = argument.metavar or argument.name.upper()
        arguments.append(name if argument.required or name.startswith("[") else f"[{name}]")
    return " ".join([*path, *arguments])


def _options(command: Any) -> str:
    shared = {"--url", "--token", "--json", "--help"}
    names = [option.opts[0] for option in _parameters(command, "option") if option.opts[0] not in shared]
    return " ".join(quoted(name) for name in names)


def _commands(name: str) -> str:
    rows = [
        (quoted(_usage(path, command)), (command.help or "").splitlines()[0], _options(command))
        for path, command in commands(programs()[name], (name,))
    ]
    return table(("command", "what it does", "options of its own"), rows)


def _flags(name: str) -> str:
    command = programs()["lwm2m-device"].commands[name]
    rows = [
        (quoted(option.opts[0]), _default(option), option.help or "")
        for option in _parameters(command, "option")
        if option.opts[0] != "--help"
    ]
    return table(("flag", "default", "meaning"), rows)


def _default(option: Any) -> str:
    if option.required:
        return "needed"
    value = option.default
    if value is None or value == "" or value is False or callable(value):
        return ""
    return quoted(getattr(value, "value", value))


def _exit_codes() -> str:
    meaning = {
        "OK": "done",
        "FAILED": "failed; also: a watched campaign was halted or aborted, or a device in it failed",
        "INVALID": "wrong usage, or an input that is malformed or out of range; nothing was changed",
        "NOT_FOUND": "what was named does not exist",
        "CONFLICT": "the request does not fit the present state",
        "UNAUTHORIZED": "no token, a bad one, or one whose role does not allow this",
        "UNREACHABLE": "server or device can't be reached now",
        "UNTRUSTED": "a signature, a digest or an identity does not hold",
        "DEVICE": "the device answered with an error",
        "INTERRUPTED": "interrupted (Ctrl-C)",
    }
    return table(("code", "meaning"), ((int(code), meaning[code.name]) for code in exits.ExitCode))


# What the code says by the name alone.
_SETTINGS = {
    "max_image_size": "Bytes of an image.",
    "api.host": "Address to listen at.",
    "api.port": "Port to listen at; 0 takes a free one.",
    "registration.min_lifetime": "Least lifetime that counts.",
    "registration.max_lifetime": "Greatest lifetime that counts.",
    "engine.ack_timeout": "ACK_TIMEOUT, seconds.",
    "engine.ack_random_factor": "ACK_RANDOM_FACTOR.",
    "engine.max_retransmit": "MAX_RETRANSMIT.",
    "engine.nstart": "NSTART: exchanges at a time with one device.",
    "engine.processing_delay": "Seconds until a request that isn't answered yet gets its acknowledgement alone.",
    "engine.max_body": "Bytes of a body that is assembled from blocks; images are not, they stay on disk.",
    "engine.max_assemblies": "Bodies in assembly at a time.",
    "engine.max_peers": "Devices with requests of ours at a time.",
    "engine.max_queued": "Requests of ours that may wait for one device.",
    "engine.max_events": "Requests of devices that may wait for the server; more are answered 5.03.",
    "engine.max_actions": "Requests of ours that may wait in the engine.",
    "engine.busy_max_age": "Max-Age of that 5.03, seconds.",
    "engine.progress_bytes": "Progress of a transfer is told after so many bytes.",
    "engine.block_size": "Largest block, both ways.",
    "retry.initial": "Seconds until the second attempt.",
    "retry.factor": "By which each further delay is longer.",
    "retry.maximum": "Longest delay, seconds.",
    "log.level": "`debug`, `info`, `warning` or `error`.",
    "log.format": "`console` or `json`, one line each.",
}


def _described(model: type[BaseModel]) -> dict[str, str]:
    """The texts that stand below the fields of a class, on one line each."""
    body = ast.parse(inspect.getsource(model)).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for first, second in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(first, ast.AnnAssign)
            and isinstance(second, ast.Expr)
            and isinstance(first.target, ast.Name)
        ):
            value = second.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[first.target.id] = " ".join(value.value.split())
    return found


def settings() -> dict[str, tuple[str, str]]:
    """Every setting with its default as TOML, and its meaning."""
    sections = config._sections()
    found: dict[str, tuple[str, str]] = {}
    texts = _described(config.Settings)
    for name, field in config.Settings.model_fields.items():
        if name not in sections:
            found[name] = (_toml(field.default), texts.get(name) or _SETTINGS[name])
    for section, model in sections.items():
        texts = _described(model)
        for name, field in model.model_fields.items():
            full = f"{section}.{name}"
            found[full] = (_toml(field.default), texts.get(name) or _SETTINGS[full])
    return found


def _toml(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return quoted(str(value).lower())
        case list():
            return quoted("[" + ", ".join(f'"{item}"' for item in value) + "]")
        case float():
            return quoted(f"{value:g}" if value < 1e6 else f"{value:.0f}")
        case int():
            return quoted(value)
        case _:
            return quoted(f'"{value}"')


def _settings_table() -> str:
    rows = ((quoted(name), default, text) for name, (default, text) in settings().items())
    return table(("setting", "default", "meaning"), rows)


def api_routes() -> list[APIRoute]:
    return [*_flat(routes.all_routes().routes), *_flat(health.router.routes)]


def _flat(found: Iterable[Any]) -> Iterator[APIRoute]:
    for route in found:
        if isinstance(route, APIRoute):
            yield route
        else:
            yield from route.effective_candidates()


def _role(endpoint: Any) -> str:
    roles = {dependencies.Reader: "reader", dependencies.Operator: "operator", dependencies.Admin: "admin"}
    for parameter in inspect.signature(endpoint, eval_str=True).parameters.values():
        if parameter.annotation in roles:
            return roles[parameter.annotation]
    return "none"


def _resources() -> str:
    rows = [
        (
            f"`{' '.join(sorted(route.methods or ()))} {route.path.replace(':path', '')}`",
            route.summary,
            _role(route.endpoint),
        )
        for route in api_routes()
    ]
    return table(("request", "", "role"), rows)


def _statuses() -> str:
    return table(("status", "when"), sorted(problems.DESCRIPTIONS.items()))


def _refusals() -> str:
    rows = [
        (quoted(code.value), result, "rejected" if code in FINAL else "failed", REASONS[code.value].sentence)
        for code, result in UPDATE_RESULT.items()
    ]
    return table(("code", "Update Result", "the deployment ends as", "meaning"), rows)


def _results(by_result: Mapping[int, Outcome] = BY_RESULT) -> str:
    rows = []
    for number, outcome in by_result.items():
        again = "no"
        if outcome.retryable:
            most = "as the campaign says" if outcome.max_retries is None else f"{outcome.max_retries} at most"
            again = f"{most}, after {outcome.retry_after:g} s or later" if outcome.retry_after else most
        rows.append((number, outcome.ending.value, quoted(outcome.reason), again))
    return table(("result", "the attempt is", "reason", "further attempts"), rows)


def _software_results() -> str:
    return _results(BY_SOFTWARE_RESULT)


def _reasons() -> str:
    rows = ((quoted(each.code), "yes" if each.retry else "", each.sentence) for each in REASONS.values())
    return table(("reason", "may be tried again", "meaning"), rows)


def _attributes() -> str:
    return table(("name", "type"), ((quoted(name), type_.value) for name, type_ in BUILT_IN.items()))


def _formats() -> str:
    return table(("number", "format"), ((int(each), each.name.replace("_", " ")) for each in ContentFormat))


def _campaign_states() -> str:
    states: dict[str, list[str]] = {}
    for (state, event), after in CAMPAIGN_TABLE.items():
        states.setdefault(state.value, []).append(f"{event.value} → {after.value}")
    return table(
        ("state", "what may happen"), ((quoted(s), ", ".join(events)) for s, events in states.items())
    )


def _security_reasons() -> str:
    return table(("reason", "meaning"), ((quoted(code), text) for code, text in security_log.TEXTS.items()))


def _image_refusals() -> str:
    rows = [(quoted(code.value), text) for code, text in MEANING.items()]
    return table(("code", "why"), [*rows, *((quoted(code), text) for code, text in UPLOAD_REFUSALS.items())])


def _protections() -> str:
    return table(("protected from", "on the server", "on the device"), protections())


TABLES = {
    "protections": _protections,
    "image-refusals": _image_refusals,
    "commands": lambda: _commands("lwm2m"),
    "device-commands": lambda: _commands("lwm2m-device"),
    "device-run": lambda: _flags("run"),
    "device-fleet": lambda: _flags("fleet"),
    "exit-codes": _exit_codes,
    "settings": _settings_table,
    "resources": _resources,
    "statuses": _statuses,
    "refusals": _refusals,
    "results": _results,
    "software-results": _software_results,
    "reasons": _reasons,
    "attributes": _attributes,
    "formats": _formats,
    "campaign-states": _campaign_states,
    "security-reasons": _security_reasons,
}


def main() -> None:
    for document in documents():
        text = document.read_text(encoding="utf-8")
        new = renewed(text)
        if new != text:
            document.write_text(new, encoding="utf-8")
            print(document.relative_to(ROOT))


if __name__ == "__main__":
    main()
