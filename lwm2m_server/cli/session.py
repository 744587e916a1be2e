"""What commands have in common: options that all of them take, the server they talk to, and how they end."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from lwm2m_server.cli.exits import errors_to_exit
from lwm2m_server.cli.local import find
from lwm2m_server.cli.output import Output
from lwm2m_server.errors import InvalidInput

if TYPE_CHECKING:
    from lwm2m_server.cli.client import Client

P = ParamSpec("P")

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="LWM2M_URL", help="Address of the server.", rich_help_panel="Server"),
]
AccessToken = Annotated[
    str | None,
    typer.Option("--token", envvar="LWM2M_TOKEN", help="Access token.", rich_help_panel="Server"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class Session:
    """One run of a remote command."""

    def __init__(self, *, url: str | None, token: str | None, as_json: bool) -> None:
        self.out = Output(as_json=as_json)
        self._target = find(url, token)
        self._client: Client | None = None

    @property
    def client(self) -> "Client":
        """The server; httpx is loaded when it is needed."""
        if self._client is None:
            from lwm2m_server.cli.client import Client

            self._client = Client(self._target)
        return self._client

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()


def _with_parameters(
    command: Callable[..., None], function: Callable[..., None], added: dict[str, tuple[Any, Any]]
) -> Callable[..., None]:
    """Give `command` the parameters of `function` but the first, and the added ones (annotation, default)."""
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in added.items()
    ]
    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    command.__signature__ = signature.replace(parameters=[*keyword, *shared])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*keyword, *shared]}
    return command


def remote(function: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    """Make a command that talks to a server: adds --url, --token, --json and gives it a Session."""

    @functools.wraps(function)
    def command(**arguments: Any) -> None:
        with errors_to_exit():
            session = Session(
                url=arguments.pop("url"), token=arguments.pop("token"), as_json=arguments.pop("as_json")
            )
            try:
                function(session, **arguments)  # type: ignore[call-arg]  # typer gives what the signature says
            finally:
                session.close()

    return _with_parameters(
        command, function, {"url": (Url, None), "token": (AccessToken, None), "as_json": (AsJson, False)}
    )


def offline(function: Callable[Concatenate[Output, P], None]) -> Callable[..., None]:
    """Make a command that needs no server: adds --json and gives it an Output."""

    @functools.wraps(function)
    def command(**arguments: Any) -> None:
        with errors_to_exit():
            function(Output(as_json=arguments.pop("as_json")), **arguments)  # type: ignore[call-arg]

    return _with_parameters(command, function, {"as_json": (AsJson, False)})


def read_file(path: Path, field: str) -> bytes:
    """Read a file that the user named; `InvalidInput` when that can't be done."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, field, error) from None


def unreadable(path: Path, field: str, error: OSError) -> InvalidInput:
    """Return the error for a file that can't be read or written."""
    return InvalidInput(
        f"{path}: {error.strerror or error}", field=field, hint="check the name and its permissions"
    )


def pairs(arguments: list[str], field: str) -> dict[str, str]:
    """Read `name=value` arguments."""
    found: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name.strip():
            raise InvalidInput(f"'{argument}' is not name=value", field=field, hint="such as region=eu")
        if name.strip() in found:
            raise InvalidInput(f"'{name.strip()}' is given twice", field=field, hint="give each name once")
        found[name.strip()] = value
    return found
