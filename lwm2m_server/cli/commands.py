"""Puts the commands together."""

from typing import Annotated

import typer

from lwm2m_server.cli import (
    attributes,
    campaigns,
    certs,
    credentials,
    database,
    devices,
    filters,
    firmware,
    keys,
    manifest,
    objects,
    operations,
    serve,
    tokens,
)

_EXITS = """Exit codes: 0 done, 1 failed, 2 invalid input, 3 not found, 4 conflict, 5 not authorised,
6 unreachable, 7 a signature or digest does not hold, 8 the device answered with an error."""

app = typer.Typer(
    name="lwm2m",
    help="Manage constrained devices over LwM2M, and update their firmware.",
    epilog=_EXITS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # loading rich for the help alone would take longer than everything else
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("lwm2m-server"))
        raise typer.Exit


@app.callback()
def _root(
    _shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    pass


serve.register(app)
operations.register(app)
for _name, _group in (
    ("devices", devices.app),
    ("attributes", attributes.app),
    ("credentials", credentials.app),
    ("authorities", credentials.authorities),
    ("certs", certs.app),
    ("keys", keys.app),
    ("firmware", firmware.app),
    ("manifest", manifest.app),
    ("campaigns", campaigns.app),
    ("filters", filters.app),
    ("objects", objects.app),
    ("tokens", tokens.app),
    ("db", database.app),
):
    app.add_typer(_group, name=_name)
