"""Devices as processes: the reference device, and the one on Leshan's library."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from harness.keys import DeviceKeys
from harness.process import BIN, ROOT, Process
from harness.releases import CLASS, VENDOR

LESHAN = ROOT / "tests/interop/leshan/target"


class ReferenceDevice:
    """`lwm2m-device run` with its flash in a file; it can lose its power and come back."""

    def __init__(
        self,
        folder: Path,
        endpoint: str,
        server_uri: str,
        *,
        trust: Path | None = None,
        vendor: str = VENDOR,
        class_name: str = CLASS,
        version: str = "1.0.0",
        options: tuple[str, ...] = (),
        keys: DeviceKeys | None = None,
        kind: str = "psk",
    ) -> None:
        self.endpoint = endpoint
        self.flash = folder / f"{endpoint}.flash"
        self._command = [str(BIN / "lwm2m-device"), "run", "--server", server_uri, "--endpoint", endpoint]
        self._command += ["--flash", str(self.flash), "--initial-version", version]
        if trust is not None:
            self._command += ["--trust", str(trust), "--vendor", vendor, "--class", class_name]
        if keys is not None:
            self._command += ["--handshake-timeout", "1", *keys.flags(kind)]
        self._options = list(options)
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def start(self, *, options: tuple[str, ...] | None = None) -> "ReferenceDevice":
        """Switch it on; `options` replaces those it was made with."""
        extra = self._options if options is None else list(options)
        self._process = Process(self.endpoint, [*self._command, *extra])
        self._process.wait_line("Boot: ")
        return self

    def kill(self) -> None:
        """Cut the power."""
        self.process.kill()
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(self, *failure: object) -> None:
        if failure[1] is not None and self._process is not None:
            print(self._process.tail())
        self.stop()


class LeshanDevice:
    """The Java device; `delivery` is pull, push or both, `properties` of the JVM are its credentials."""

    def __init__(
        self,
        folder: Path,
        endpoint: str,
        server_uri: str,
        *,
        delivery: str = "both",
        version: str = "1.0.0",
        properties: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.endpoint = endpoint
        self.image = folder / f"{endpoint}.bin"
        command = ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        command += [f"-D{name}={value}" for name, value in properties.items()]
        command.append("-cp")
        command += [f"{LESHAN / 'peers.jar'}:{LESHAN / 'lib'}/*", "LeshanDevice", server_uri]
        command += [endpoint, str(folder), version, "60", delivery]
        # It writes a settings file into its working directory: one of its own for each.
        home = folder / f"{endpoint}-home"
        home.mkdir()
        self.process = Process(endpoint, command, cwd=home)

    def __enter__(self) -> Self:
        self.process.wait_line("booted")
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[1] is not None:
            print(self.process.tail())
        if self.process.running:
            self.process.kill()

    def deregister(self) -> None:
        self.process.write("deregister")
        assert self.process.wait() == 0
