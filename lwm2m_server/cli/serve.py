"""`lwm2m serve`: run the server."""

import asyncio
import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lwm2m_server.cli.exits import errors_to_exit
from lwm2m_server.cli.local import URL_FILE

if TYPE_CHECKING:
    from lwm2m_server.app import Server
    from lwm2m_server.config import LogSettings

# Objects that the collector lets come before it looks. What a batch of devices makes dies without it.
_YOUNG = 20_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve)


def serve(
    *,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", envvar="LWM2M_CONFIG", help="Settings (TOML); else ./lwm2m.toml."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Database, images and tokens.")] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(help="Where devices reach it by coaps (DTLS), address:port; may be repeated."),
    ] = None,
    listen_coap: Annotated[
        list[str] | None,
        typer.Option(help="The same by plain coap, which is off without it: no names are proven there."),
    ] = None,
    public_uri: Annotated[
        str | None, typer.Option(help="Base from which devices download, coaps://host[:port].")
    ] = None,
    api_host: Annotated[str | None, typer.Option(help="Address of the REST interface.")] = None,
    api_port: Annotated[int | None, typer.Option(help="Port of the REST interface.")] = None,
    objects: Annotated[
        list[Path] | None, typer.Option(help="Folder with further object definitions; may be repeated.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="console or json.")] = None,
) -> None:
    """Run the server until it is interrupted. Flags win over the environment (LWM2M_...), that over the file."""
    # What a start makes lives as long as the server: a fifth of it would be the collector, which finds nothing.
    gc.disable()
    with errors_to_exit():
        from lwm2m_server.cli.sqlite_library import spare_statistics

        spare_statistics()
        from lwm2m_server import app
        from lwm2m_server.config import load_settings

        given: dict[str, dict[str, Any]] = {
            "coap": {"listen": listen_coap or None},
            "coaps": {"listen": listen or None, "public_uri": public_uri},
            "api": {"host": api_host, "port": api_port},
            "log": {"level": log_level, "format": log_format},
        }
        flags: dict[str, Any] = {"data_dir": data_dir, "objects": objects or None}
        for section, values in given.items():
            flags[section] = {name: value for name, value in values.items() if value is not None} or None
        settings = load_settings(config, {name: value for name, value in flags.items() if value is not None})
        configure_log(settings.log)
        asyncio.run(app.serve(settings, ready=_ready))


def _ready(server: "Server", token: str | None) -> None:
    gc.freeze()
    gc.set_threshold(_YOUNG)
    gc.enable()
    settings = server.settings
    (settings.data_dir / URL_FILE).write_text(server.api_url + "\n", encoding="utf-8")
    if token is not None:
        print(f"made the administrator's token; it is in {settings.token_path}", file=sys.stderr)
    for address in server.listening:
        print(f"devices: {address}", flush=True)
    print(f"api: {server.api_url}/api/v1", flush=True)


def configure_log(settings: "LogSettings") -> None:
    """Send what the server has to say to standard error, one line each."""
    import structlog

    level = getattr(logging, settings.level.upper())
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=max(level, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s"
    )
