"""`lwm2m filters`: try the language that names devices."""

from typing import Annotated

import typer

from lwm2m_server.cli.output import clean
from lwm2m_server.cli.session import Session, remote
from lwm2m_server.errors import InvalidInput

app = typer.Typer(help="Try filters before they are used.", no_args_is_help=True)


@app.command("check")
@remote
def check(
    session: Session,
    text: Annotated[
        str, typer.Argument(metavar="FILTER", help="""Such as 'model = "pump" and firmware.version < 2.1'.""")
    ],
    sample: Annotated[int, typer.Option(min=0, max=100, help="Devices to show.")] = 10,
) -> None:
    """Count the devices that a filter names now, and show the first of them."""
    try:
        answer = session.client.get("/filters/preview", filter=text, sample=sample)
    except InvalidInput as error:
        position = getattr(error, "position", None)
        if position is not None and not session.out.as_json:
            session.out.note(text)
            session.out.note(" " * len(clean(text[:position])) + "^")
        raise
    if session.out.as_json:
        session.out.record(answer)
        return
    count = answer["count"]
    print(f"{count} device{'' if count == 1 else 's'}")
    for endpoint in answer["sample"]:
        print(f"  {clean(endpoint)}")
    if count > len(answer["sample"]) > 0:
        print("  …")


# One command alone would become the group itself.
@app.callback()
def _group() -> None:
    pass
