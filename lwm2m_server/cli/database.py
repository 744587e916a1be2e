"""`lwm2m db`: the database of a server that is run from here."""

from pathlib import Path
from typing import Annotated

import typer

from lwm2m_server.cli.output import Output
from lwm2m_server.cli.session import offline
from lwm2m_server.errors import Conflict, InvalidInput, NotFound

app = typer.Typer(help="Look after the database of this machine's server.", no_args_is_help=True)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="LWM2M_CONFIG", help="Settings; else ./lwm2m.toml.")
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Else as the settings say.")]


def _database(config: Path | None, data_dir: Path | None) -> Path:
    from lwm2m_server.config import load_settings

    return load_settings(config, {"data_dir": data_dir} if data_dir is not None else {}).database_path


@app.command("upgrade")
@offline
def upgrade(out: Output, config: Config = None, data_dir: DataDir = None) -> None:
    """Bring the database to this version's schema; `serve` does the same when it starts."""
    from lwm2m_server.store.migrate import upgrade as upgrade_database

    path = _database(config, data_dir)
    done = upgrade_database(path)
    text = (
        f"upgraded from {done.before or 'nothing'} to {done.after}"
        if done.changed
        else f"at {done.after} already"
    )
    out.done(f"{path}: {text}", {"database": str(path), "before": done.before, "after": done.after})


@app.command("check")
@offline
def check(out: Output, config: Config = None, data_dir: DataDir = None) -> None:
    """Check the database for damage, and its schema. Exit code 4: it needs an upgrade."""
    import sqlite3
    from contextlib import closing

    from lwm2m_server.store.migrate import head

    path = _database(config, data_dir)
    if not path.is_file():
        raise NotFound(f"there is no database {path}", field="data_dir", hint="'lwm2m serve' makes one")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        state, schema = str(error), None
    if state != "ok":
        hint = "restore a backup" if schema else "name the data directory of a server"
        raise InvalidInput(f"{path}: {state}", field="database", hint=hint)
    if schema != head():
        raise Conflict(
            f"{path} has the schema {schema}, this version needs {head()}", hint="run 'lwm2m db upgrade'"
        )
    out.done(f"{path}: sound, schema {schema}", {"database": str(path), "schema": schema})


@app.command("forget-secrets")
@offline
def forget_secrets(
    out: Output,
    config: Config = None,
    data_dir: DataDir = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Remove all pre-shared keys and sessions: the way out when the master key is lost. The server must not run."""
    import asyncio

    path = _database(config, data_dir)
    if not path.is_file():
        raise NotFound(f"there is no database {path}", field="data_dir", hint="'lwm2m serve' makes one")
    if not yes and not typer.confirm("All pre-shared keys are removed for good. Go on?"):
        raise Conflict("nothing was removed", field="--yes", hint="give --yes where nobody can be asked")
    count = asyncio.run(_forget_secrets(path))
    out.done(f"{path}: {count} pre-shared keys removed", {"database": str(path), "removed": count})


async def _forget_secrets(path: Path) -> int:
    from lwm2m_server.clock import SystemClock
    from lwm2m_server.store import open_sqlite
    from lwm2m_server.store.records import NewEvent

    store = await open_sqlite(path)
    try:
        event = NewEvent(kind="credential.forgotten", at=SystemClock().now(), data={"by": "lwm2m db"})
        return await store.credentials.forget_secrets(events=[event])
    finally:
        await store.close()
