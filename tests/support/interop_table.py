"""The table of docs/interop.md: which peers were tried, and how that ended. Written by the test run.

A test says which row it proves with `@pytest.mark.row("openssl-psk")`; with the variable INTEROP_TABLE naming a file
(`scripts/interop`) the rows are written there between the markers. The rows themselves stand here, so that a page that
misses one fails a test.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

BEGIN, END = "<!-- interop -->", "<!-- interop ends -->"
HEAD = "| peer | version | who is the server | what was done | result |\n| --- | --- | --- | --- | --- |"

OPENSSL, GNUTLS, LIBCOAP = ("openssl", "version"), ("gnutls-cli", "--version"), ("coap-client-openssl", "-V")
_ASK = "import importlib.metadata as known; print(known.version('DTLSSocket'))"
TINYDTLS = (".cache/tinydtls/bin/python", "-c", _ASK)
TSHARK = ("tshark", "--version")


class Row(NamedTuple):
    """`version` is a command that prints it, or the version itself."""

    peer: str
    version: tuple[str, ...] | str
    server: str
    did: str


LESHAN = "2.0.0-M18"
ROWS = {
    "openssl-psk": Row("OpenSSL s_client", OPENSSL, "ours", "PSK-AES128-CCM8, a CoAP request"),
    "openssl-gcm": Row("OpenSSL s_client", OPENSSL, "ours", "PSK-AES128-GCM-SHA256, a CoAP request"),
    "openssl-x509": Row(
        "OpenSSL s_client",
        OPENSSL,
        "ours",
        "ECDHE-ECDSA-AES128-CCM8, certificates on both sides, MTU 256, a CoAP request",
    ),
    "openssl-server": Row("OpenSSL s_server", OPENSSL, "theirs", "PSK-AES128-CCM8, our device's Register"),
    "gnutls-psk": Row("gnutls-cli", GNUTLS, "ours", "PSK, AES-128-CCM-8, a CoAP request"),
    "gnutls-x509": Row(
        "gnutls-cli", GNUTLS, "ours", "ECDHE-ECDSA, certificates on both sides, a CoAP request"
    ),
    "gnutls-server": Row("gnutls-serv", GNUTLS, "theirs", "PSK, our device's Register"),
    "libcoap-openssl": Row("coap-client-openssl", LIBCOAP, "ours", "PSK, registration"),
    "libcoap-gnutls": Row("coap-client-gnutls", LIBCOAP, "ours", "PSK, registration"),
    "libcoap-rpk": Row(
        "coap-client-gnutls", LIBCOAP, "ours", "its raw public key, registration; our certificate unchecked"
    ),
    "libcoap-server": Row(
        "coap-server-openssl", LIBCOAP, "theirs", "PSK, our device's Register and its answer"
    ),
    "tinydtls": Row("aiocoap with tinydtls", TINYDTLS, "ours", "PSK, registration"),
    "leshan-psk": Row("Leshan client", LESHAN, "ours", "PSK, connection id, update by pull and by push"),
    "leshan-psk-plain": Row("Leshan client", LESHAN, "ours", "PSK, its setting cid=off, update by push"),
    "leshan-rpk": Row("Leshan client", LESHAN, "ours", "raw public keys, connection id, update by pull"),
    "leshan-x509": Row("Leshan client", LESHAN, "ours", "X.509, connection id, update by pull"),
    "leshan-server-psk": Row(
        "Leshan server", LESHAN, "theirs", "PSK, connection id, our device registers and is read"
    ),
    "leshan-server-rpk": Row(
        "Leshan server", LESHAN, "theirs", "raw public keys, our device registers and is read"
    ),
    "wireshark": Row("Wireshark (tshark)", TSHARK, "ours", "a captured session is decoded with our key log"),
}

_results: dict[str, str] = {}


def note_rows(item: pytest.Item) -> None:
    """Send the rows with the report, so that it works with several processes too."""
    for mark in item.iter_markers("row"):
        for name in mark.args:
            assert name in ROWS, f"no such row: {name}"
            item.user_properties.append(("row", name))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect: a row passes when each of its tests does."""
    for kind, name in report.user_properties:
        if kind != "row" or (report.when != "call" and report.passed):
            continue
        outcome = "not run: no peer" if report.skipped else report.outcome
        if _results.get(str(name)) != "failed":
            _results[str(name)] = outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table, if that was asked for."""
    wanted = os.environ.get("INTEROP_TABLE")
    if wanted is None or hasattr(session.config, "workerinput"):
        return
    file = Path(wanted)
    text = file.read_text()
    before, rest = text.split(BEGIN)
    file.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END, 1)[1]}")


def table() -> str:
    """Render the rows with what came out."""
    lines = [
        f"| {row.peer} | {_version(row.version)} | {row.server} | {row.did} | {_results.get(name, 'not run')} |"
        for name, row in ROWS.items()
    ]
    return "\n".join([HEAD, *lines])


def _version(known: tuple[str, ...] | str) -> str:
    if isinstance(known, str):
        return known
    try:
        done = subprocess.run(known, check=False, capture_output=True, text=True)
    except OSError:
        return "-"
    found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return found[0] if found else "-"
