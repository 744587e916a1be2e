"""`lwm2m read`, `write`, `execute` …: operations that are carried out on a device."""

import json
from typing import Annotated, Any

import typer

from lwm2m_server.cli.devices import Endpoint, attribute_value
from lwm2m_server.cli.output import Column, Record, clean, moment
from lwm2m_server.cli.session import Session, pairs, remote
from lwm2m_server.errors import InvalidInput

_VALUES: list[Column] = [("path", "path"), ("name", "name"), ("value", "value")]

ObjectPath = Annotated[str, typer.Argument(help="Such as /3/0 or /3/0/9.", metavar="PATH")]


def register(app: typer.Typer) -> None:
    """Add the commands to the top level."""
    for command, name in (
        (read, "read"),
        (write, "write"),
        (execute, "execute"),
        (observe, "observe"),
        (discover, "discover"),
        (create, "create"),
        (delete, "delete"),
        (write_attributes, "write-attributes"),
    ):
        app.command(name, rich_help_panel="Operations on a device")(command)


def _path(endpoint: str, kind: str, path: str = "") -> str:
    from lwm2m_server.cli.client import segment

    return f"/devices/{segment(endpoint)}/{kind}" + (f"/{checked(path)}" if path else "")


def checked(path: str) -> str:
    """Return a path without its outer slashes if it is one."""
    inner = path.strip("/")
    parts = inner.split("/") if inner else []
    if len(parts) > 4 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise InvalidInput(
            f"'{path}' is not a path",
            field="PATH",
            hint="write /object/instance/resource in numbers, such as /3/0/9",
        )
    return inner


def written(values: list[str], path: str, *, text: bool) -> Any:
    """Turn arguments into what the API takes: one value, or resources by id for an instance."""
    if len(checked(path).split("/")) == 2 or len(values) > 1:
        given = pairs(values, "VALUE")
        return {name: value if text else json_value(value) for name, value in given.items()}
    return values[0] if text else json_value(values[0])


def json_value(text: str) -> Any:
    """Read JSON; anything else is text as it stands."""
    value = attribute_value(text)
    if isinstance(value, str) and text[:1] in "{[":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return value


def _show(session: Session, answer: Record) -> None:
    if session.out.as_json:
        session.out.record(answer)
    elif len(answer["values"]) == 1 and answer["values"][0]["path"] == answer["path"]:
        print(clean(answer["values"][0]["value"]))
    else:
        session.out.records(answer["values"], _VALUES, empty="it has no values")


@remote
def read(
    session: Session,
    endpoint: Endpoint,
    path: ObjectPath,
    timeout: Annotated[float | None, typer.Option(min=0.1, max=300, help="Seconds to wait.")] = None,
) -> None:
    """Read a resource, an instance or an object."""
    _show(session, session.client.get(_path(endpoint, "objects", path), timeout=timeout))


@remote
def write(
    session: Session,
    *,
    endpoint: Endpoint,
    path: ObjectPath,
    values: Annotated[
        list[str],
        typer.Argument(metavar="VALUE...", help="A value; for an instance ID=VALUE for each resource."),
    ],
    partial: Annotated[
        bool, typer.Option("--partial", help="Keep the resources that are not given.")
    ] = False,
    text: Annotated[
        bool, typer.Option("--text", help="Take values as text, not as numbers or JSON.")
    ] = False,
) -> None:
    """Write a resource, or the resources of an instance; opaque values in hex digits."""
    value = written(values, path, text=text)
    where = _path(endpoint, "objects", path)
    if partial:
        session.client.patch(where, {"value": value})
    else:
        session.client.put(where, {"value": value})
    session.out.done(f"{endpoint}: {path} is written")


@remote
def execute(
    session: Session,
    endpoint: Endpoint,
    path: ObjectPath,
    arguments: Annotated[str | None, typer.Argument(help="Such as 0='now'.")] = None,
) -> None:
    """Execute a resource."""
    if len(checked(path).split("/")) != 3:
        raise InvalidInput(f"'{path}' is not a resource", field="PATH", hint="write it as /3/0/4")
    session.client.post(_path(endpoint, "objects", path), {"arguments": arguments} if arguments else {})
    session.out.done(f"{endpoint}: {path} is executed")


@remote
def discover(session: Session, endpoint: Endpoint, path: ObjectPath) -> None:
    """Ask a device what it has under a path."""
    answer = session.client.get(_path(endpoint, "discover", path))
    columns: list[Column] = [
        ("path", "path"),
        ("attributes", lambda link: " ".join(_attribute(*item) for item in link["attributes"].items())),
    ]
    session.out.records(answer["items"], columns)


def _attribute(name: str, value: str | None) -> str:
    return name if value is None else f"{name}={value}"


@remote
def create(
    session: Session,
    endpoint: Endpoint,
    path: ObjectPath,
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[ID=VALUE]...", help="Its resources.")
    ] = None,
    instance: Annotated[
        int | None, typer.Option(min=0, max=65534, help="Its id; else the device chooses.")
    ] = None,
) -> None:
    """Create an instance of an object."""
    if "/" in checked(path) or not checked(path):
        raise InvalidInput(f"'{path}' is not an object", field="PATH", hint="write it as /3303")
    body: dict[str, Any] = {
        "value": {name: json_value(value) for name, value in pairs(values or [], "ID=VALUE").items()}
    }
    if instance is not None:
        body["instance"] = instance
    answer = session.client.post(_path(endpoint, "objects", path), body)
    session.out.done(f"{endpoint}: {answer['path']} is there", answer)


@remote
def delete(session: Session, endpoint: Endpoint, path: ObjectPath) -> None:
    """Delete an instance."""
    session.client.delete(_path(endpoint, "objects", path))
    session.out.done(f"{endpoint}: {path} is deleted")


@remote
def write_attributes(
    session: Session,
    endpoint: Endpoint,
    path: ObjectPath,
    values: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="pmin, pmax, gt, lt, st …; NAME= unsets.")
    ],
) -> None:
    """Set the conditions under which a device notifies."""
    changes: dict[str, float | None] = {}
    for name, text in pairs(values, "NAME=VALUE").items():
        try:
            changes[name] = float(text) if text else None
        except ValueError:
            raise InvalidInput(f"{name}={text} is not a number", field=name, hint="such as pmin=10") from None
    session.client.patch(_path(endpoint, "notification-attributes", path), {"attributes": changes})
    session.out.done(f"{endpoint}: attributes of {path} are written")


@remote
def observe(
    session: Session,
    endpoint: Endpoint,
    path: Annotated[str | None, typer.Argument(help="What to observe; none: list what is observed.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print values as they come.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the observation.")] = False,
) -> None:
    """Observe a path; the server keeps on doing so until --cancel, also when the device registers again."""
    if path is None:
        if follow or cancel:
            raise InvalidInput("name the path", field="PATH", hint="such as /3303/0/5700")
        found = session.client.get(_path(endpoint, "observations"))["items"]
        columns: list[Column] = [("path", "path"), ("since", lambda item: moment(item["created_at"]))]
        session.out.records(found, columns, empty="nothing is observed")
    elif cancel:
        session.client.delete(_path(endpoint, "observations", path))
        session.out.done(f"{endpoint}: {path} is no longer observed")
    else:
        where = "/" + checked(path)
        _show(session, session.client.post(_path(endpoint, "observations"), {"path": where}))
        if follow:
            _follow(session, endpoint, where)


def _follow(session: Session, endpoint: str, path: str) -> None:
    for event in session.client.events(endpoint=endpoint):
        if event["kind"] != "device.notified" or event["data"].get("path") != path:
            continue
        if session.out.as_json:
            session.out.line(event)
            continue
        for value in event["data"].get("values", []):
            print(moment(event["at"]), value["path"], clean(value["value"]), flush=True)
