"""`lwm2m serve` as a process, and its REST API."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from harness.keys import ServerKeys
from harness.process import BIN, Process

DEADLINE = 120.0

FAST = """
[engine]
ack_timeout = 0.3
[retry]
initial = 0.3
maximum = 2.0
[update]
poll_interval = 1.0
[campaigns]
interval = 0.1
"""


def free_port(kind: socket.SocketKind) -> int:
    """Return a port that nobody uses now."""
    with closing(socket.socket(socket.AF_INET, kind)) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """The server in a folder of its own; it can be killed and started again on the same ports and data.

    `settings` is TOML that is added to the configuration. With `keys` it also listens on coaps, with that key and
    certificate.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: str = FAST,
        public_port: int | None = None,
        keys: ServerKeys | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port(socket.SOCK_DGRAM)
        self._api_port = free_port(socket.SOCK_STREAM)
        self.secure_port = free_port(socket.SOCK_DGRAM)
        secure = "[]" if keys is None else f'["127.0.0.1:{self.secure_port}"]\n{keys.toml()}'
        public = "" if public_port is None else f'public_uri = "coap://127.0.0.1:{public_port}"\n'
        self._config = folder / "lwm2m.toml"
        self._config.write_text(
            f'data_dir = "{folder / "data"}"\n'
            f'[coap]\nlisten = ["127.0.0.1:{self.port}"]\n{public}'
            f"[coaps]\nlisten = {secure}\n[api]\nport = {self._api_port}\n{settings}"
        )
        self._process: Process | None = None
        self._client: httpx.Client | None = None

    @property
    def uri(self) -> str:
        """Where devices reach it."""
        return f"coap://127.0.0.1:{self.port}"

    @property
    def secure_uri(self) -> str:
        """Where devices reach it over DTLS."""
        return f"coaps://127.0.0.1:{self.secure_port}"

    def credential(self, endpoint: str, kind: str, **material: str) -> None:
        """Say what a device proves itself with."""
        self.call("POST", "/credentials", json={"endpoint": endpoint, "kind": kind, **material})

    @property
    def url(self) -> str:
        """Where programs reach it."""
        return f"http://127.0.0.1:{self._api_port}"

    @property
    def token(self) -> str:
        return (self.folder / "data" / "admin-token").read_text().strip()

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def start(self) -> Self:
        self._process = Process("server", [str(BIN / "lwm2m"), "serve", "--config", str(self._config)])
        deadline = time.monotonic() + DEADLINE
        while True:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self._api_port)) == 0:
                    break
            assert self._process.running, self._process.tail()
            assert time.monotonic() < deadline, self._process.tail()
            time.sleep(0.05)  # the port opens when it opens; there is nothing to wait on
        self._client = httpx.Client(
            base_url=self.url + "/api/v1",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=httpx.Timeout(DEADLINE),
        )
        return self

    def kill(self) -> None:
        self.process.kill()
        self._close()

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
        self._close()

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._process = self._client = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None and self._process is not None:
            print(self._process.tail())
        self.stop()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of an answer that must be a success."""
        answer = self.try_call(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def try_call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return any answer."""
        assert self._client is not None
        return self._client.request(method, path, **options)

    def events(self, **parameters: str) -> Iterator[Mapping[str, Any] | None]:
        """Yield events as they happen, from the first on (server-sent events); None for a sign of life between them."""
        assert self._client is not None
        with self._client.stream("GET", "/events", params={"after": "0", **parameters}) as stream:
            assert stream.status_code == 200
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])
                elif line.startswith(":"):
                    yield None

    def trust(self, authority: Path) -> None:
        """Let certificates of this authority in, under the endpoint name that is their common name."""
        rule = {"source": "cn", "pattern": "{endpoint}"}
        self.call("POST", "/authorities", json={"certificate": authority.read_text(), "name": "test", **rule})

    def refusal(self, reason: str) -> Mapping[str, Any]:
        """Return the event that tells the operator of a refused device, once it is there."""
        for event in self.events():
            if event and event["kind"] == "security.refused" and event["data"]["reason"] == reason:
                return event
        raise AssertionError("the stream of events ended")

    def wait_until(
        self, condition: Callable[[], Any], *, deadline: float = DEADLINE, **parameters: str
    ) -> Any:
        """Return what `condition` returns as soon as that is true; it is tried at each event and sign of life."""
        end = time.monotonic() + deadline
        if result := condition():
            return result
        for event in self.events(**parameters):
            if result := condition():
                return result
            assert time.monotonic() < end, f"gave up waiting; last event: {event}\n{self.process.tail()}"
        raise AssertionError(f"the event stream ended\n{self.process.tail()}")

    def wait_registered(self, *endpoints: str) -> None:
        """Return when all of them are registered and their inventory is known."""

        def known() -> bool:
            for endpoint in endpoints:
                answer = self.try_call("GET", f"/devices/{endpoint}")
                if answer.status_code == 404:
                    return False
                device = answer.json()
                if not device["registered"] or device["firmware"]["version"] is None:
                    return False
            return True

        self.wait_until(known)

    def campaign(self, name: str, manifest: str, **options: Any) -> str:
        """Create a campaign, start it, and return its id."""
        body = {"name": name, "manifest_id": manifest, **options}
        campaign: str = self.call("POST", "/campaigns", json=body)["id"]
        self.call("POST", f"/campaigns/{campaign}/start")
        return campaign

    def deployment(self, campaign: str, endpoint: str) -> dict[str, Any]:
        history = self.call("GET", f"/campaigns/{campaign}/deployments/{endpoint}")
        return dict(history["deployment"])

    def wait_campaign(self, campaign: str, *, deadline: float = DEADLINE) -> dict[str, Any]:
        """Return the statistics when the campaign has ended."""

        def ended() -> bool:
            state = self.call("GET", f"/campaigns/{campaign}")["state"]
            return state in {"completed", "halted", "aborted"}

        self.wait_until(ended, campaign=campaign, deadline=deadline)
        return dict(self.call("GET", f"/campaigns/{campaign}/statistics"))

    def cli(self, *arguments: str) -> Process:
        """Run the `lwm2m` command against this server."""
        return Process(
            "lwm2m",
            [str(BIN / "lwm2m"), arguments[0], "--url", self.url, "--token", self.token, *arguments[1:]],
        )
