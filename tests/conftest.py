"""Shared by all tests: peers that may be missing, and hypothesis profiles.

A test that needs a peer says so with `@pytest.mark.peer("leshan")`. Without the peer it is skipped with the
reason, except in CI (`CI=true`), where a missing peer is a failure: green must mean that it was seen working.
"""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from interop_table import note_rows, pytest_runtest_logreport, pytest_sessionfinish

__all__ = ["pytest_runtest_logreport", "pytest_runtest_setup", "pytest_sessionfinish"]

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile(
    "fast", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("slow", parent=settings.get_profile("fast"), max_examples=2000, derandomize=False)
settings.register_profile(
    "fuzz",
    parent=settings.get_profile("fast"),
    max_examples=1000,
    derandomize=False,
    database=None,
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


_TOOLS = {
    "openssl": ["openssl"],
    "gnutls": ["gnutls-cli", "gnutls-serv"],
    "libcoap-dtls": ["coap-client-openssl", "coap-client-gnutls", "coap-server-openssl"],
    "tshark": ["tshark"],
}


def _missing(peer: str) -> str | None:
    """Why the peer can't be used, or None when it can."""
    match peer:
        case "leshan":
            if shutil.which("java") is None:
                return "no java on PATH"
            if not (ROOT / "tests/interop/leshan/target/peers.jar").exists():
                return "the Leshan peers are not built (scripts/peers)"
        case "libcoap":
            if shutil.which("coap-client-notls") is None:
                return "no coap-client-notls on PATH (Debian: libcoap3-bin)"
        case "openssl" | "gnutls" | "libcoap-dtls" | "tshark":
            missing = [tool for tool in _TOOLS[peer] if shutil.which(tool) is None]
            if missing:
                return f"no {missing[0]} on PATH (scripts/peers installs it)"
        case "tinydtls":
            if not (ROOT / ".cache/tinydtls/bin/aiocoap-client").exists():
                return "aiocoap with tinydtls is not built (scripts/peers)"
        case "pybricks":
            if not (ROOT / ".cache/pybricks/done").exists():
                return "no real firmware images (scripts/peers fetches them)"
        case "softhsm":
            if shutil.which("softhsm2-util") is None or shutil.which("pkcs11-tool") is None:
                return "no softhsm2-util or pkcs11-tool on PATH (Debian: softhsm2, opensc)"
        case "cwt":
            if not (ROOT / ".cache/cwt/done").exists():
                return "the COSE library cwt is not installed (scripts/peers)"
        case _:
            raise ValueError(f"no such peer: {peer}")
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    note_rows(item)
    for mark in item.iter_markers("peer"):
        for peer in mark.args:
            reason = _missing(peer)
            if reason is None:
                continue
            if os.environ.get("CI") == "true":
                pytest.fail(f"peer {peer} is missing in CI: {reason}")
            pytest.skip(f"peer {peer}: {reason}")
