"""The command `lwm2m-device`: run a reference device, look at its flash, or run a fleet.

Log lines go to stderr, data to stdout. Exit codes as those of `lwm2m`: 0 done, 1 failed,
2 wrong use (flags, files), 4 the flash is in use, 6 no network.
"""

import asyncio
import json
import signal
import sys
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from lwm2m_device import files, options, uri
from lwm2m_device.components import HOOK_TIMEOUT, read_components
from lwm2m_device.credentials import CredentialFiles
from lwm2m_device.places import read_places
from lwm2m_device.settings import DELTA_METHODS, MAIN_COMPONENT, Delivery, DeviceSettings, Faults
from lwm2m_server import versions
from lwm2m_server.devices.identities import Kind
from lwm2m_server.errors import Conflict, InvalidInput, Lwm2mError, Unavailable
from lwm2m_server.firmware.encryption import read_class_key

app = typer.Typer(
    help="Reference LwM2M device with simulated flash, boot loader and signed updates.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_LWM2M_VERSIONS = ("1.0", "1.1", "1.2")
_BLOCK_SIZES = (16, 32, 64, 128, 256, 512, 1024)

_EXIT_CODES: dict[type, int] = {InvalidInput: 2, Conflict: 4, Unavailable: 6}

_Choice = TypeVar("_Choice", int, str)


@app.command()
def run(
    server: options.Server,
    endpoint: options.Endpoint,
    flash: options.Flash,
    vendor: options.Vendor = "",
    class_name: options.ClassName = "",
    trust: options.Trust = None,
    approval: options.Approval = None,
    requires: options.Requires = None,
    decryption_key: options.DecryptionKey = None,
    battery: options.Battery = None,
    unauthorized: options.Unauthorized = False,
    consent: options.Consent = None,
    consent_timeout: options.ConsentTimeout = 10.0,
    components: options.Components = None,
    application: options.Application = None,
    application_hook: options.ApplicationHook = "",
    application_timeout: options.ApplicationTimeout = HOOK_TIMEOUT,
    plain: options.Plain = False,
    psk_identity: options.PskIdentity = "",
    psk_key: options.PskKey = "",
    psk_key_file: options.PskKeyFile = None,
    key: options.Key = None,
    certificate: options.Certificate = None,
    server_key: options.ServerKey = None,
    server_certificate: options.ServerCertificate = None,
    authority: options.Authority = None,
    certificate_usage: options.CertificateUsage = None,
    server_name: options.ServerName = "",
    connection_id: options.ConnectionId = True,
    handshake_timeout: options.HandshakeTimeout = 9.0,
    manufacturer: options.Manufacturer = "Acme",
    model: options.Model = "M1",
    serial: options.Serial = "",
    hardware: options.Hardware = "1.0",
    initial_version: options.InitialVersion = "1.0.0",
    initial_image: options.InitialImage = None,
    lifetime: options.Lifetime = 300,
    lwm2m_version: options.Lwm2mVersion = "1.1",
    delivery: options.DeliveryMethod = Delivery.BOTH,
    bind: options.Bind = "",
    slot_size: options.SlotSize = None,
    page_size: options.PageSize = None,
    layout: options.Layout = None,
    staging_size: options.StagingSize = None,
    block_size: options.BlockSize = 1024,
    max_boots: options.MaxBoots = 3,
    confirm_timeout: options.ConfirmTimeout = 300.0,
    ack_timeout: options.AckTimeout = 2.0,
    fetch_patience: options.FetchPatience = 900.0,
    deltas: options.Deltas = ",".join(DELTA_METHODS),
    die_at_percent: options.DieAtPercent = None,
    bad_boot: options.BadBoot = False,
    silent: options.Silent = False,
    cut_power_at: options.CutPowerAt = None,
    seed: options.Seed = 0,
) -> None:
    """Run one device until SIGTERM or SIGINT."""
    settings = _settings(**locals())
    _check_identity(settings)
    asyncio.run(_run(settings))


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="Flash file of a device.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Show what a flash file holds: slots, boot state, update under way, wear."""
    from lwm2m_device.report import describe

    found = describe(file)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for section, values in found.items():
        print(section)
        for name, value in values.items():
            print(f"  {name.replace('_', ' ')}: {_shown(value)}")


@app.command()
def fleet(
    server: options.FleetServer = "",
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of devices.")] = 1000,
    prefix: Annotated[str, typer.Option(help="Endpoint names are this and a number.")] = "sim-",
    lifetime: Annotated[int, typer.Option(min=1, max=0xFFFFFFFF, help="Seconds.")] = 300,
    version: Annotated[str, typer.Option(help="Firmware version of all of them at first.")] = "1.0.0",
    failing: Annotated[float, typer.Option(min=0, max=1, help="Share that fails to install.")] = 0.0,
    vanishing: Annotated[float, typer.Option(min=0, max=1, help="Share that never comes back.")] = 0.0,
    spread: Annotated[float, typer.Option(min=0, help="Seconds that first registrations take.")] = 1.0,
    seconds: options.Seconds = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is left to chance.")] = 0,
    security: options.FleetSecurity = Kind.PSK,
    secret: options.Secret = None,
    server_key: options.ServerKey = None,
    authority: options.Authority = None,
    server_name: options.ServerName = "",
    connection_id: options.ConnectionId = True,
    handshake_timeout: options.HandshakeTimeout = 2.0,
    credentials_out: options.CredentialsOut = None,
    authority_out: options.AuthorityOut = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable sum at the end.")] = False,
) -> None:
    """Run many light devices that register, update and take images, for load and for trying campaigns.

    On coaps the credentials of all of them come from one secret; --credentials-out writes them down for
    `lwm2m credentials import` and ends.
    """
    from lwm2m_device.fleet import FleetFiles, run_fleet

    named = FleetFiles(security, secret, server_key, authority, server_name, connection_id, handshake_timeout)
    if credentials_out is not None or authority_out is not None:
        named.write(prefix, count, credentials_out, authority_out)
        return
    sums = run_fleet(
        server,
        count,
        files=named,
        prefix=prefix,
        lifetime=lifetime,
        version=versions.parse(version).text,
        failing=failing,
        vanishing=vanishing,
        spread=spread,
        seed=seed,
        seconds=seconds,
        log=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if as_json:
        print(json.dumps(sums, indent=2))
        return
    for name, value in sums.items():
        print(f"{name}: {value}")


def main() -> None:
    """Entry point: errors for users are one line on stderr, with the way out."""
    try:
        app(standalone_mode=True)
    except Lwm2mError as error:
        field = f" [{error.field}]" if error.field else ""
        hint = f"\n  {error.hint}" if error.hint else ""
        print(f"lwm2m-device: {error.message}{field}{hint}", file=sys.stderr)
        sys.exit(next((_EXIT_CODES[kind] for kind in type(error).__mro__ if kind in _EXIT_CODES), 1))


async def _run(settings: DeviceSettings) -> None:
    from lwm2m_device.device import Device, World
    from lwm2m_device.faults import SuddenDeath
    from lwm2m_server.transport import EngineTransport

    def log(line: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        print(f"{now} {settings.endpoint}: {line}", file=sys.stderr, flush=True)

    supply = SuddenDeath(settings.faults, log)
    world = World.real(lambda: EngineTransport(ack_timeout=settings.ack_timeout), log, supply)
    device = Device(settings, world)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, device.stop)
    await device.run()


def _settings(
    *,
    server: str,
    endpoint: str,
    trust: list[Path] | None,
    approval: list[Path] | None,
    decryption_key: list[Path] | None,
    components: Path | None,
    application: list[str] | None,
    initial_version: str,
    initial_image: Path | None,
    lwm2m_version: str,
    bind: str,
    block_size: int,
    deltas: str,
    die_at_percent: int | None,
    bad_boot: bool,
    silent: bool,
    cut_power_at: int | None,
    seed: int,
    **same: Any,
) -> DeviceSettings:
    """Turn the flags of `run` into settings; `same` are those that need no change."""
    credentials = CredentialFiles(**{each.name: same.pop(each.name) for each in fields(CredentialFiles)})
    return DeviceSettings(
        endpoint=_endpoint(endpoint),
        server=server,
        security=credentials.load(uri.parse(server, field="server"), endpoint),
        initial_version=versions.parse(initial_version).text,
        initial_image=None if initial_image is None else files.read(initial_image, "initial-image"),
        trust=tuple(files.read(each, "trust") for each in trust or []),
        approval=tuple(files.read(each, "approval-key") for each in approval or []),
        decryption_keys=tuple(
            read_class_key(files.read(each, "decryption-key"), "decryption-key")
            for each in decryption_key or []
        ),
        components=() if components is None else read_components(components, MAIN_COMPONENT),
        applications=read_places(application or []),
        lwm2m_version=_one_of(lwm2m_version, _LWM2M_VERSIONS, "lwm2m-version"),
        local=_local(bind),
        block_size=_one_of(block_size, _BLOCK_SIZES, "block-size"),
        delta_methods=tuple(
            _one_of(each, DELTA_METHODS, "deltas") for each in filter(None, deltas.split(","))
        ),
        faults=Faults(die_at_percent, bad_boot, silent, cut_power_at, seed),
        **same,
    )


def _check_identity(settings: DeviceSettings) -> None:
    if settings.plain and settings.components:
        raise InvalidInput(
            "A device with several components takes manifests, no raw images.",
            field="components",
            hint="Leave --plain or --components out.",
        )
    if settings.plain:
        return
    for name, given in (
        ("vendor", settings.vendor),
        ("class", settings.class_name),
        ("trust", settings.trust),
    ):
        if not given:
            raise InvalidInput(
                f"A device that takes manifests needs --{name}.",
                field=name,
                hint="Give --vendor, --class and --trust, or --plain for a device that takes raw images.",
            )
    from lwm2m_device.judges import trusted_keys

    trusted_keys(settings)


def _endpoint(text: str) -> str:
    if not text or len(text.encode()) > 255 or any(character < " " for character in text):
        raise InvalidInput("An endpoint name has 1 to 255 bytes and no control characters.", field="endpoint")
    return text


def _one_of(value: _Choice, allowed: tuple[_Choice, ...], field: str) -> _Choice:
    if value not in allowed:
        listed = ", ".join(str(each) for each in allowed)
        raise InvalidInput(f"{value} is not one of {listed}.", field=field, hint=f"Choose one of {listed}.")
    return value


def _local(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"{text!r} is not HOST:PORT.", field="bind", hint="For example 0.0.0.0:0.")
    return host.strip("[]"), int(port)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_shown(each)}" for name, each in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value != "" else "-"
