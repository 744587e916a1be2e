"""The flags of `lwm2m-device run`: types and help texts."""

from pathlib import Path
from typing import Annotated

import typer

from lwm2m_device.layout import LayoutKind
from lwm2m_device.settings import Delivery
from lwm2m_server.devices.identities import Kind
from lwm2m_server.firmware.keys import KeyType

Server = Annotated[str, typer.Option(help="URI of the LwM2M server.", metavar="coaps://HOST:PORT")]
Endpoint = Annotated[str, typer.Option(help="Endpoint name of this device.")]
Flash = Annotated[Path, typer.Option(help="File that holds the simulated flash; made when it is missing.")]
Vendor = Annotated[str, typer.Option(help="Vendor domain; makes the vendor identifier.")]
ClassName = Annotated[str, typer.Option("--class", help="Device class; makes the class identifier.")]
Trust = Annotated[
    list[Path] | None, typer.Option(help="PEM public key that may sign manifests; repeat for more.")
]
Approval = Annotated[
    list[Path] | None,
    typer.Option(
        "--approval-key", help="PEM public key of an operator who approves downgrades; repeat for more."
    ),
]
Requires = Annotated[
    KeyType | None, typer.Option(help="Manifests need a second signature of this algorithm.")
]
DecryptionKey = Annotated[
    list[Path] | None,
    typer.Option(
        help="Key of the device class for encrypted images: 16 bytes, hex, or a P-256 private key (PEM);"
        " repeat for more."
    ),
]
Battery = Annotated[int | None, typer.Option(min=0, help="Charge in mWh that conditions are asked against.")]
Unauthorized = Annotated[
    bool, typer.Option("--unauthorized", help="Decline updates that ask the application.")
]
Consent = Annotated[
    Path | None,
    typer.Option(help="Program that accepts, puts off or refuses each download and installation."),
]
ConsentTimeout = Annotated[float, typer.Option(min=0.1, help="Seconds that it has for an answer.")]
Components = Annotated[
    Path | None,
    typer.Option(help="TOML file that describes the components beside the main one."),
]
Application = Annotated[
    list[str] | None,
    typer.Option(
        help="Place for an application (object 9), with the version that is there at first; repeat for more."
        " An empty name takes any.",
        metavar="NAME[=VERSION]",
    ),
]
ApplicationHook = Annotated[
    str,
    typer.Option(
        help="Program, or Python module:function, that installs, removes, starts and stops applications."
    ),
]
ApplicationTimeout = Annotated[float, typer.Option(min=0.1, help="Seconds that it has for each of these.")]
Plain = Annotated[bool, typer.Option("--plain", help="Take raw images, no manifests.")]
Manufacturer = Annotated[str, typer.Option(help="Resource /3/0/0.")]
Model = Annotated[str, typer.Option(help="Resource /3/0/1.")]
Serial = Annotated[str, typer.Option(help="Resource /3/0/2; the endpoint name when left out.")]
Hardware = Annotated[str, typer.Option(help="Hardware version, /3/0/18.")]
InitialVersion = Annotated[str, typer.Option(help="Version of the factory image of a new flash.")]
InitialImage = Annotated[Path | None, typer.Option(help="Factory image of a new flash.")]
Lifetime = Annotated[int, typer.Option(min=0, max=0xFFFFFFFF, help="Seconds; 0 never expires.")]
Lwm2mVersion = Annotated[str, typer.Option(help="1.0, 1.1 or 1.2.")]
DeliveryMethod = Annotated[Delivery, typer.Option(help="How packages may come.")]
Bind = Annotated[str, typer.Option(help="Local address and port.", metavar="HOST:PORT")]
SlotSize = Annotated[int | None, typer.Option(min=1, help="Bytes of an image slot of a new flash.")]
PageSize = Annotated[int | None, typer.Option(min=256, help="Bytes of a page of a new flash.")]
Layout = Annotated[
    LayoutKind | None,
    typer.Option(
        help="How a new flash is divided: two slots, swap over a scratch area, or one slot and staging."
    ),
]
StagingSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Bytes of the staging area of a new flash with one slot, which is then rewritten by deltas in place; "
        "else as large as the slot.",
    ),
]
BlockSize = Annotated[int, typer.Option(help="Bytes of a block of a download.")]
MaxBoots = Annotated[int, typer.Option(min=1, max=250, help="Boots on trial before a revert.")]
ConfirmTimeout = Annotated[float, typer.Option(min=1, help="Seconds of a boot on trial.")]
FleetServer = Annotated[
    str, typer.Option(help="URI of the LwM2M server.", metavar="coaps://HOST:PORT", show_default=False)
]
Seconds = Annotated[float | None, typer.Option(min=0.1, help="End after so long; by default on Ctrl-C.")]
FleetSecurity = Annotated[Kind, typer.Option(help="What the devices prove themselves with on coaps.")]
Secret = Annotated[
    Path | None, typer.Option(help="File with the secret that all credentials come from; made when missing.")
]
CredentialsOut = Annotated[
    Path | None, typer.Option(help="Write the credentials of the devices as CSV to this new file, and end.")
]
AuthorityOut = Annotated[
    Path | None, typer.Option(help="Write the authority of the devices' certificates (PEM) there, and end.")
]
PskIdentity = Annotated[
    str, typer.Option(help="Identity of the pre-shared key; the endpoint name when left out.")
]
PskKey = Annotated[
    str,
    typer.Option(
        help="Pre-shared key in hex; better in the environment or a file than here.",
        metavar="HEX",
        envvar="LWM2M_DEVICE_PSK_KEY",
        show_envvar=True,
    ),
]
PskKeyFile = Annotated[Path | None, typer.Option(help="File with the pre-shared key in hex.")]
Key = Annotated[Path | None, typer.Option(help="Private key of P-256 (PEM or DER): raw public key.")]
Certificate = Annotated[
    Path | None, typer.Option(help="Certificate of --key with its chain (PEM or DER): X.509.")
]
ServerKey = Annotated[
    Path | None, typer.Option(help="The server's public key (PEM or DER), with --key alone.")
]
ServerCertificate = Annotated[
    Path | None, typer.Option(help="The certificate that --certificate-usage speaks of (PEM or DER).")
]
Authority = Annotated[Path | None, typer.Option(help="Authorities of the server's certificate (PEM or DER).")]
CertificateUsage = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=3,
        help="Certificate Usage, /0/*/15; 3 with --server-certificate, else 2 with the first authority.",
    ),
]
ServerName = Annotated[
    str, typer.Option(help="Name in the server's certificate; that of the URI when left out.")
]
ConnectionId = Annotated[
    bool, typer.Option("--connection-id/--no-connection-id", help="Send with the server's connection id.")
]
HandshakeTimeout = Annotated[
    float, typer.Option(min=0.1, max=60, help="Seconds until a flight of a handshake is sent again.")
]
AckTimeout = Annotated[
    float,
    typer.Option(min=0.01, max=60, help="Seconds until a message is sent again (RFC 7252 ACK_TIMEOUT)."),
]
FetchPatience = Annotated[float, typer.Option(min=1, help="Seconds a download waits without progress.")]
Deltas = Annotated[
    str, typer.Option(help="Methods of deltas that it applies, with commas between; empty: none.")
]
DieAtPercent = Annotated[
    int | None, typer.Option(min=1, max=100, help="Fault: SIGKILL itself at this part of a download.")
]
BadBoot = Annotated[bool, typer.Option("--bad-boot", help="Fault: a new image crashes at each boot.")]
Silent = Annotated[bool, typer.Option("--silent", help="Fault: never answer again after Update.")]
CutPowerAt = Annotated[
    int | None, typer.Option(min=1, help="Fault: SIGKILL itself in the middle of this flash operation.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the cells that suffer when the power is cut.")]
