"""`lwm2m campaigns`: one update for many devices."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from lwm2m_server.cli.deltas import saved
from lwm2m_server.cli.devices import EVENT_COLUMNS, Endpoint
from lwm2m_server.cli.output import Column, Record, clean, moment, size
from lwm2m_server.cli.session import Session, remote
from lwm2m_server.errors import InvalidInput

app = typer.Typer(help="Create, steer and watch campaigns.", no_args_is_help=True)

Campaign = Annotated[str, typer.Argument(help="Its id or name.", metavar="CAMPAIGN")]

_COLUMNS: list[Column] = [
    ("id", "id"),
    ("name", "name"),
    ("state", "state"),
    ("devices", "targets"),
    ("filter", "filter"),
    ("started", lambda campaign: moment(campaign["started_at"])),
    ("ended", lambda campaign: moment(campaign["ended_at"])),
]
_FIELDS: list[Column] = [
    ("id", "id"),
    ("name", "name"),
    ("description", "description"),
    ("state", "state"),
    ("reason", lambda campaign: campaign["text"] or campaign["reason"]),
    ("manifest", "manifest_id"),
    ("filter", lambda campaign: campaign["filter"] or "all devices"),
    ("devices", "targets"),
    ("at a time", "limit"),
    ("retries", "retries"),
    ("stop rule", "stop"),
    ("approval", "approval"),
    ("severity", "severity"),
    ("may defer", lambda campaign: _period(campaign["max_defer"])),
    ("created", lambda campaign: f"{moment(campaign['created_at'])} by {campaign['created_by']}"),
    ("start at", lambda campaign: moment(campaign["start_at"])),
    ("started", lambda campaign: moment(campaign["started_at"])),
    ("ended", lambda campaign: moment(campaign["ended_at"])),
]


def _period(seconds: int | None) -> str | None:
    return None if seconds is None else f"{seconds} s"


def progress_text(deployment: Record) -> str:
    """Write how far a transfer has come."""
    if not deployment["size"]:
        return "-"
    percent = 100 * deployment["offset"] // deployment["size"]
    return f"{percent} % of {size(deployment['size'])}"


_DEPLOYMENTS: list[Column] = [
    ("endpoint", "endpoint"),
    ("state", "state"),
    ("reason", "reason"),
    ("attempt", "attempt"),
    ("progress", progress_text),
    ("from", "from_version"),
    ("to", "to_version"),
    ("changed", lambda deployment: moment(deployment["updated_at"])),
    ("text", "text"),
]


class Severity(StrEnum):
    """As in campaigns.records."""

    CRITICAL = "critical"
    MANDATORY = "mandatory"
    OPTIONAL = "optional"


class DeploymentState(StrEnum):
    """As in campaigns.records, which isn't loaded here to start fast."""

    PENDING = "pending"
    OFFERED = "offered"
    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    INSTALLING = "installing"
    CONFIRMING = "confirming"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


def path_of(campaign: str) -> str:
    """Return the campaign's path in the API."""
    from lwm2m_server.cli.client import segment

    return f"/campaigns/{segment(campaign)}"


def zoned(text: str | None) -> str | None:
    """Check a time and give it the local time zone if it has none."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"'{text}' is not a time",
            field="time",
            hint="write it as 2026-01-31T22:00 or 2026-01-31T22:00:00Z",
        ) from None
    return when.astimezone().isoformat()


@app.command("create")
@remote
def create(
    session: Session,
    *,
    name: Annotated[str, typer.Argument(help="Its name.", metavar="NAME")],
    manifest: Annotated[str, typer.Option("--manifest", "-m", help="Id of the manifest, or the beginning.")],
    wanted: Annotated[str, typer.Option("--filter", "-f", help="Which devices; none: all.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Devices being updated at a time.")] = None,
    retries: Annotated[
        int | None, typer.Option(min=0, help="Attempts after the first one, each device.")
    ] = None,
    stop: Annotated[str | None, typer.Option(help="Such as 'failures > 20 % after 10'.")] = None,
    approval: Annotated[bool, typer.Option("--approval", help="Someone else must approve it.")] = False,
    severity: Annotated[
        Severity | None, typer.Option(help="How urgent it is, told to devices that ask their application.")
    ] = None,
    max_defer: Annotated[
        int | None,
        typer.Option(min=0, help="Seconds for which a device may put it off; 0: not at all."),
    ] = None,
    start_at: Annotated[str | None, typer.Option(help="Not before, such as 2026-01-31T22:00Z.")] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    start: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
) -> None:
    """Create a campaign as a draft."""
    manifest_id = session.client.get(_manifest_path(manifest))["id"]
    given = {
        "limit": limit,
        "retries": retries,
        "stop": stop,
        "severity": severity.value if severity is not None else None,
        "max_defer": max_defer,
        "start_at": zoned(start_at),
    }
    body: dict[str, Any] = {
        "name": name,
        "manifest_id": manifest_id,
        "filter": wanted,
        "description": description,
        "approval": approval,
        **{field: value for field, value in given.items() if value is not None},
    }
    campaign = session.client.post("/campaigns", body)
    if start:
        campaign = session.client.post(path_of(campaign["id"]) + "/start")
    session.out.record(campaign, _FIELDS)


def _manifest_path(manifest: str) -> str:
    from lwm2m_server.cli.client import segment

    return f"/manifests/{segment(manifest)}"


@app.command("list")
@remote
def list_campaigns(
    session: Session,
    archived: Annotated[bool, typer.Option("--archived", help="Also those put away.")] = False,
) -> None:
    """List the campaigns."""
    found, _ = session.client.items("/campaigns", archived=str(archived).lower())
    session.out.records(found, _COLUMNS, empty="no campaign is there yet")


@app.command("show")
@remote
def show(session: Session, campaign: Campaign) -> None:
    """Show a campaign."""
    session.out.record(session.client.get(path_of(campaign)), _FIELDS)


_ACTIONS = {
    "start": "Start a campaign (or ask for approval, where it needs one).",
    "approve": "Approve a campaign that someone else made.",
    "refuse": "Refuse approval: it is a draft again.",
    "pause": "Begin no further devices; those under way go on.",
    "resume": "Go on after a pause.",
    "abort": "End a campaign: what waits or downloads is cancelled, what installs is awaited.",
    "archive": "Put an ended campaign away.",
}


def _add_action(name: str, text: str) -> None:
    @remote
    def act(session: Session, campaign: Campaign) -> None:
        changed = session.client.post(f"{path_of(campaign)}/{name}")
        session.out.done(f"{changed['name']} is {changed['state'].replace('_', ' ')}", changed)

    app.command(name, help=text)(act)


for _name, _text in _ACTIONS.items():
    _add_action(_name, _text)


@app.command("delete")
@remote
def delete(session: Session, campaign: Campaign) -> None:
    """Delete a draft."""
    session.client.delete(path_of(campaign))
    session.out.done(f"{campaign} is deleted")


@app.command("statistics")
@remote
def statistics(session: Session, campaign: Campaign) -> None:
    """Count the devices of a campaign by state and reason."""
    counts = session.client.get(path_of(campaign) + "/statistics")
    if session.out.as_json:
        session.out.record(counts)
        return
    rows: list[dict[str, Any]] = []
    for state, count in counts["states"].items():
        if count:
            reasons = counts["reasons"].get(state, {})
            text = ", ".join(f"{reason} {number}" for reason, number in reasons.items() if reason)
            rows.append({"state": state, "devices": count, "reasons": text})
    columns: list[Column] = [("state", "state"), ("devices", "devices"), ("reasons", "reasons")]
    session.out.records(rows, columns, empty="it has no devices yet")
    totals = counts["totals"]
    session.out.note(f"{totals['done']} of {totals['targets']} devices came to an end")
    savings = counts["savings"]
    if savings["deltas"]:
        session.out.note(
            f"deltas saved {saved(savings)}: {savings['deltas']} of {savings['updates']} updates"
        )


@app.command("deployments")
@remote
def deployments(
    session: Session,
    *,
    campaign: Campaign,
    endpoint: Annotated[str | None, typer.Argument(help="Show this device and its history.")] = None,
    state: Annotated[DeploymentState | None, typer.Option(help="Only in this state.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only with this reason.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 100,
) -> None:
    """List the devices of a campaign, or show the history of one."""
    if endpoint is not None:
        _history(session, campaign, endpoint)
        return
    found, more = session.client.items(
        path_of(campaign) + "/deployments",
        limit=limit,
        state=state.value if state is not None else None,
        reason=reason,
    )
    session.out.records(found, _DEPLOYMENTS, empty="no device is there")
    if more:
        session.out.note(f"the first {limit}; there are more: --limit 0 shows all")


def _history(session: Session, campaign: str, endpoint: Endpoint) -> None:
    from lwm2m_server.cli.client import segment

    answer = session.client.get(f"{path_of(campaign)}/deployments/{segment(endpoint)}")
    if session.out.as_json:
        session.out.record(answer)
        return
    session.out.record(answer["deployment"], [*_DEPLOYMENTS])
    print()
    session.out.records(answer["events"], [*EVENT_COLUMNS[:2], EVENT_COLUMNS[3]])


@app.command("watch")
@remote
def watch(
    session: Session,
    campaign: Campaign,
    interval: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds between looks.")] = 1.0,
    patience: Annotated[float, typer.Option(min=0, help="Seconds that the server may be away.")] = 60.0,
) -> None:
    """Follow a campaign until it ends. Exit code 1: it was halted or aborted, or a device failed."""
    from lwm2m_server.cli.watch import Watch

    result = Watch(session, path_of(campaign), interval=interval, patience=patience).run()
    if not result.good:
        session.out.note(clean(result.text))
        raise typer.Exit(1)
    session.out.note(clean(result.text))
