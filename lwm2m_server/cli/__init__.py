"""The command line: `lwm2m`."""

import os
import sys


def main() -> None:
    """Run `lwm2m`; what nobody foresaw becomes one line, with a traceback when LWM2M_TRACEBACK is set."""
    from lwm2m_server.cli.commands import app

    try:
        app()
    except Exception as error:
        if os.environ.get("LWM2M_TRACEBACK"):
            raise
        text = f"error: unexpected {type(error).__name__}: {error}"
        print(f"{text} (LWM2M_TRACEBACK=1 shows where; please report it)", file=sys.stderr)
        sys.exit(1)
