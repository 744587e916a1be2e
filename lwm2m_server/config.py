"""Settings of the server: flags over environment over a TOML file over defaults.

The file is `lwm2m.toml` in the working directory or what `--config` names. Its sections are the groups below;
in the environment `LWM2M_<SECTION>_<NAME>` says the same (`LWM2M_API_PORT=8081`), with commas in lists.
Times are seconds, sizes bytes. Unknown names and bad values are errors, one line each.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from lwm2m_server.errors import InvalidInput

DEFAULT_FILE = Path("lwm2m.toml")
DEFAULT_DATA_DIR = Path("lwm2m-data")
ENV_PREFIX = "LWM2M_"
# read by the CLI itself, no settings
CLIENT_VARIABLES = frozenset({"LWM2M_URL", "LWM2M_TOKEN", "LWM2M_CONFIG", "LWM2M_TRACEBACK"})


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("write a number")  # noqa: TRY004  pydantic collects ValueErrors
    return value


_Number = BeforeValidator(_no_boolean)
Seconds = Annotated[float, _Number, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
Port = Annotated[int, _Number, Field(ge=0, le=65535)]
Count = Annotated[int, _Number, Field(ge=1, le=1 << 31)]
Bytes = Annotated[int, _Number, Field(ge=1, le=1 << 40)]


def split_address(text: str) -> tuple[str, int]:
    """Split `192.0.2.1:5683` or `[2001:db8::1]:5683` into host and port; ValueError says what is wrong."""
    match = re.fullmatch(r"(?:\[(?P<v6>[^\]]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>\d{1,5})", text.strip())
    if match is None or int(match["port"]) > 65535:
        raise ValueError("write it as address:port, such as 0.0.0.0:5683 or [::]:5683")
    host = match["v6"] or match["v4"]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"'{host}' is not an IP address; use 0.0.0.0 or [::] for all of them") from None
    if (address.version == 6) != (match["v6"] is not None):
        raise ValueError("only IPv6 addresses stand in square brackets")
    return host, int(match["port"])


def _listener(text: str) -> str:
    split_address(text)
    return text.strip()


def _comma_list(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _base_uri(text: str | None) -> str | None:
    if text is None:
        return None
    parts = urlsplit(text)
    if parts.scheme not in {"coap", "coaps", "coap+tcp", "coaps+tcp"} or not parts.hostname:
        raise ValueError("write it as coap://host[:port], as devices reach this server")
    if parts.query or parts.fragment or parts.path not in {"", "/"}:
        raise ValueError("give scheme, host and port alone, without path or query")
    return text.rstrip("/")


def _block_size(value: int) -> int:
    if value not in {16, 32, 64, 128, 256, 512, 1024}:
        raise ValueError("a block has 16, 32, 64, 128, 256, 512 or 1024 bytes (RFC 7959 2.2)")
    return value


class _Group(BaseModel):
    """A section of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class CoapSettings(_Group):
    """`[coap]`: where devices reach the server without security, if at all."""

    listen: Annotated[
        list[Annotated[str, AfterValidator(_listener)]], NoDecode, BeforeValidator(_comma_list)
    ] = []
    """Addresses to listen at, `address:port` each (the port of coap is 5683; 0 takes a free one). None: plain CoAP
    is off, for there names are not proven and traffic can be read.
    """
    public_uri: Annotated[str | None, AfterValidator(_base_uri)] = None
    """Base of the URIs from which devices download; None derives it from the address the device talks to."""

    @property
    def listeners(self) -> list[tuple[str, int]]:
        """The addresses as (host, port)."""
        return [split_address(text) for text in self.listen]


Suite = Literal[
    "TLS_PSK_WITH_AES_128_CCM_8",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8",
    "TLS_PSK_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_PSK_WITH_AES_128_CCM",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CCM",
    "TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_PSK_WITH_AES_128_CCM_8_SHA256",
    "TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256",
    "TLS_PSK_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
]


class CoapsSettings(_Group):
    """`[coaps]`: where devices reach the server over DTLS, and what it presents."""

    listen: Annotated[
        list[Annotated[str, AfterValidator(_listener)]], NoDecode, BeforeValidator(_comma_list)
    ] = ["0.0.0.0:5684"]
    """Addresses to listen at, `address:port` each; port 0 takes a free one."""
    public_uri: Annotated[str | None, AfterValidator(_base_uri)] = None
    """Base of the URIs from which devices download; None derives it from the address the device talks to."""
    private_key: Path | None = None
    """The server's key (PEM, P-256); None: `server.key` in the data directory, made at the first start."""
    certificate: Path | None = None
    """Certificate of that key with its chain (PEM); None: the raw public key alone."""
    raw_public_keys: bool = True
    """Whether devices may prove themselves by raw public keys."""
    suites: Annotated[list[Suite], NoDecode, BeforeValidator(_comma_list), Field(min_length=1)] = [
        "TLS_PSK_WITH_AES_128_CCM_8",
        "TLS_PSK_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ]
    """Cipher suites that are negotiated, by their registered names, the preferred one first. Also known: `_CCM` with
    whole tags, `TLS_ECDHE_PSK_WITH_` (`AES_128_GCM_SHA256`, `AES_128_CCM_8_SHA256`, `AES_128_CCM_SHA256`), and
    `TLS_PSK_WITH_AES_128_CBC_SHA256` and `TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256`, which OMA demands of servers.
    """
    connection_id_length: Annotated[int, _Number, Field(ge=0, le=20)] = 8
    """Bytes of the connection ids that the server hands out (RFC 9146); a device keeps its session when its
    address changes.
    """
    handshake_timeout: Seconds = 9.0
    """Seconds until the first retransmission of a handshake (RFC 7925 11)."""
    key_log_file: Path | None = None
    """Gets the secrets of all sessions (SSLKEYLOGFILE), for Wireshark: whoever has it reads the traffic."""
    session_lifetime: Seconds = 7_776_000.0
    """Seconds after which a stored session that was not saved again is forgotten at a start."""

    @property
    def listeners(self) -> list[tuple[str, int]]:
        """The addresses as (host, port)."""
        return [split_address(text) for text in self.listen]

    @model_validator(mode="after")
    def _paired(self) -> "CoapsSettings":
        if self.certificate is not None and self.private_key is None:
            raise ValueError("certificate needs the private_key that belongs to it")
        return self


class SecuritySettings(_Group):
    """`[security]`: how secrets are kept."""

    master_key_file: Path | None = None
    """Seals pre-shared keys and sessions (32 bytes, base64); None: `master.key` in the data directory, made at
    the first start. Keep a copy of it apart from the database.
    """
    master_key: SecretStr | None = None
    """The master key itself; for the environment, instead of the file."""


class ApiSettings(_Group):
    """`[api]`: the REST interface."""

    host: str = "127.0.0.1"
    port: Port = 8080
    max_body: Bytes = 1 << 20
    """Bytes of a request body, uploads of images apart."""


class RegistrationSettings(_Group):
    """`[registration]`: how long a silent device counts as registered."""

    min_lifetime: Seconds = 1.0
    max_lifetime: Seconds = 31_536_000.0
    """Lifetimes outside these bounds are moved to them for the expiry, never refused."""
    grace: Seconds = 30.0
    """Seconds after the end of the lifetime until the registration is taken as expired (late updates)."""
    expiry_interval: Seconds = 10.0
    """How often expired registrations are looked for."""

    @model_validator(mode="after")
    def _ordered(self) -> "RegistrationSettings":
        if self.min_lifetime > self.max_lifetime:
            raise ValueError("min_lifetime must not be above max_lifetime")
        return self


class EngineSettings(_Group):
    """`[engine]`: constants of the CoAP message layer (RFC 7252 4.8) and bounds of its queues.

    The names are the keyword arguments of `Engine`, so `Engine(**settings.engine.model_dump())` is valid.
    """

    ack_timeout: Seconds = 2.0
    ack_random_factor: Annotated[float, Field(ge=1.0, le=10.0)] = 1.5
    max_retransmit: Annotated[int, Field(ge=0, le=20)] = 4
    nstart: Annotated[int, Field(ge=1, le=64)] = 1
    processing_delay: Seconds = 0.5
    transfer_timeout: Seconds = 300.0
    """Seconds without progress after which a transfer fails."""
    max_body: Bytes = 1 << 20
    max_assemblies: Count = 1024
    max_peers: Count = 1 << 20
    max_queued: Count = 64
    max_events: Count = 8192
    max_actions: Count = 65536
    busy_max_age: Annotated[int, Field(ge=1, le=3600)] = 5
    progress_bytes: Bytes = 8192
    """How far a push may be ahead of what is stored of it: after a crash so much is sent again."""
    block_size: Annotated[int, AfterValidator(_block_size)] = 1024
    max_half_open: Annotated[int, _Number, Field(ge=1, le=1 << 16)] = 32_768
    """DTLS handshakes under way at a time, on each address of `coaps.listen`; more are not begun. Each takes up to
    2.5 KB. A device whose hello is dropped tries again after ever longer waits, so a small number makes a whole
    fleet come back slowly.
    """
    max_half_open_per_prefix: Annotated[int, _Number, Field(ge=1, le=1 << 20)] = 16
    """Of these from one network: an IPv4 /24 or IPv6 /64. Raise it where many devices share a NAT."""
    key_operations_per_second: Annotated[int, _Number, Field(ge=1, le=1 << 20)] = 2000
    """Handshakes with raw public keys or certificates that are begun in a second; more are shed, and the device tries
    again.
    """
    key_operations_per_second_per_prefix: Annotated[int, _Number, Field(ge=1, le=1 << 20)] = 200
    """Of these from one such network."""


class ImageSettings(_Group):
    """`[images]`: what may be uploaded, and how much of it."""

    quota: Bytes = 1 << 36
    """Bytes of all images, manifests and uploads under way together."""
    require_signed: bool = False
    """Take only images that a trusted image key signed (`lwm2m firmware keys`)."""
    max_uploads: Count = 16
    """Uploads under way at a time."""
    upload_lifetime: Seconds = 86_400.0
    """Seconds without a byte after which an upload that broke off is removed."""


class UpdateSettings(_Group):
    """`[update]`: how long a device may stay in each phase of a firmware update."""

    offer_timeout: Seconds = 600.0
    """From the offer (package or URI written) until the first byte is fetched."""
    download_timeout: Seconds = 900.0
    """Without progress of a download; the whole download may take as long as it needs."""
    verify_timeout: Seconds = 300.0
    """From the last byte until the device says that it is downloaded (State 2)."""
    install_timeout: Seconds = 1800.0
    """From the Execute of Update until the device has registered again."""
    confirm_timeout: Seconds = 600.0
    """From that registration until version and digest were seen."""
    poll_interval: Seconds = 30.0
    """How often State and Result are read while notifications may have been lost."""
    prefer: Literal["pull", "push"] = "pull"
    """Delivery for devices that support both (object 5, resource 9)."""


DeltaMethod = Literal["lzma", "heatshrink", "bsdiff", "hdiffpatch", "detools-heatshrink", "thumb"]


class DeltaSettings(_Group):
    """`[deltas]`: patches that are sent in place of images, to devices that ask for them."""

    methods: Annotated[list[DeltaMethod], NoDecode, BeforeValidator(_comma_list)] = list(
        get_args(DeltaMethod)
    )
    """Methods that are tried, in this order, cheap ones first; empty: no deltas."""
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """A patch above this share of the image is not sent."""
    max_image: Bytes = 16 << 20
    """Of larger images no deltas are made."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that make deltas at the same time."""
    memory: Bytes = 512 << 20
    """Of each of them."""
    timeout: Seconds = 60.0
    """For all methods of a pair of images."""
    quota: Bytes = 1 << 30
    """Bytes of all patches together; what no longer fits is not kept, and devices get the image."""


class RetrySettings(_Group):
    """`[retry]`: back-off of deployments that failed for a reason that may pass."""

    initial: Seconds = 60.0
    factor: Annotated[float, Field(ge=1.0, le=100.0)] = 2.0
    maximum: Seconds = 3600.0
    jitter: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Share of the delay by which it varies at random."""

    @model_validator(mode="after")
    def _ordered(self) -> "RetrySettings":
        if self.initial > self.maximum:
            raise ValueError("initial must not be above maximum")
        return self


class CampaignSettings(_Group):
    """`[campaigns]`: defaults and pace of the campaign runner."""

    interval: Seconds = 1.0
    """How often running campaigns are looked at."""
    concurrency: Count = 100
    """Devices at work at once, when a campaign does not say."""
    retries: Annotated[int, Field(ge=0, le=100)] = 3
    """Attempts after the first one, when a campaign does not say."""


class LogSettings(_Group):
    """`[log]`: what goes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class Settings(BaseSettings):
    """All settings. `Settings()` gives the defaults alone; `load_settings` reads file and environment."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    data_dir: Path = DEFAULT_DATA_DIR
    """Database, images and tokens; created when missing."""
    objects: Annotated[list[Path], NoDecode, BeforeValidator(_comma_list)] = []
    """Folders with further object definitions (DDF XML)."""
    inventory: bool = True
    """Read the Device and Firmware objects after each registration."""
    max_image_size: Bytes = 256 << 20
    coap: CoapSettings = CoapSettings()
    coaps: CoapsSettings = CoapsSettings()
    security: SecuritySettings = SecuritySettings()
    api: ApiSettings = ApiSettings()
    registration: RegistrationSettings = RegistrationSettings()
    engine: EngineSettings = EngineSettings()
    images: ImageSettings = ImageSettings()
    update: UpdateSettings = UpdateSettings()
    deltas: DeltaSettings = DeltaSettings()
    retry: RetrySettings = RetrySettings()
    campaigns: CampaignSettings = CampaignSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  signature of pydantic-settings
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take nothing from the surroundings: tests and tools that build Settings get what they wrote."""
        return (init_settings,)

    @property
    def database_path(self) -> Path:
        """The SQLite database."""
        return self.data_dir / "lwm2m.sqlite3"

    @property
    def blob_dir(self) -> Path:
        """Images by digest."""
        return self.data_dir / "blobs"

    @property
    def master_key_path(self) -> Path:
        """The key that seals secrets in the database."""
        return self.security.master_key_file or self.data_dir / "master.key"

    @property
    def server_key_path(self) -> Path:
        """The key by which devices know this server."""
        return self.coaps.private_key or self.data_dir / "server.key"

    @property
    def delta_dir(self) -> Path:
        """Patches by digest."""
        return self.data_dir / "deltas"

    @property
    def token_path(self) -> Path:
        """The first administrator's token, for local use of the CLI."""
        return self.data_dir / "admin-token"


class ConfigurationError(InvalidInput):
    """Settings are unusable; `problems` has one error each, the message one line each."""

    code = "invalid-configuration"

    def __init__(self, problems: list[InvalidInput]) -> None:
        super().__init__(
            "\n".join(problem.message for problem in problems), field=problems[0].field, hint=problems[0].hint
        )
        self.problems = problems


def load_settings(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read settings: `overrides` (flags; nested by section) over environment over file over defaults.

    Raises ConfigurationError naming every unknown name and bad value.
    """
    file = config or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    content = _read_file(file) if file is not None else {}
    problems = [*_unknown_in_file(content, file), *_unknown_in_environment()]
    if problems:
        raise ConfigurationError(problems)

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)

    flags = dict(overrides or {})
    try:
        loaded = Loaded(**flags)
    except ValidationError as error:
        raise ConfigurationError([_explain(item, flags, file) for item in error.errors()]) from None
    return Settings.model_construct(**{name: getattr(loaded, name) for name in Settings.model_fields})


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = InvalidInput(f"{file}: no such file; name an existing one with --config", field="config")
    except (OSError, UnicodeDecodeError) as error:
        problem = InvalidInput(f"{file}: can't be read: {error}", field="config")
    except tomllib.TOMLDecodeError as error:
        problem = InvalidInput(f"{file}: not valid TOML: {error}", field="config")
    raise ConfigurationError([problem])


def _sections() -> dict[str, type[BaseModel]]:
    return {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _names() -> list[str]:
    sections = _sections()
    plain = [name for name in Settings.model_fields if name not in sections]
    return plain + [f"{section}.{name}" for section, model in sections.items() for name in model.model_fields]


def _nearest(name: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(candidates)}"


def _unknown_in_file(content: Mapping[str, Any], file: Path | None) -> Iterator[InvalidInput]:
    sections = _sections()
    for key, value in content.items():
        if key not in Settings.model_fields:
            known = list(Settings.model_fields)
            yield InvalidInput(f"{file}: unknown setting '{key}'; {_nearest(key, known)}", field=key)
        elif key in sections and isinstance(value, Mapping):
            known = list(sections[key].model_fields)
            for name in value:
                if name not in known:
                    text = f"{file}: unknown setting '{key}.{name}'; {_nearest(name, known)}"
                    yield InvalidInput(text, field=f"{key}.{name}")


def _variable(name: str) -> str:
    return ENV_PREFIX + name.replace(".", "_").upper()


def _unknown_in_environment() -> Iterator[InvalidInput]:
    known = [_variable(name) for name in _names()]
    for variable in os.environ:
        if variable.startswith(ENV_PREFIX) and variable not in known and variable not in CLIENT_VARIABLES:
            text = f"environment: unknown variable {variable}; {_nearest(variable, known)}"
            yield InvalidInput(text, field=variable)


def _explain(item: Any, flags: Mapping[str, Any], file: Path | None) -> InvalidInput:
    """One line: where it was set, the name, the value, the way out."""
    location = [str(part) for part in item["loc"]]
    name = ".".join(location[:2] if location and location[0] in _sections() else location[:1])
    section, _, leaf = name.partition(".")
    inner = flags.get(section)
    if (leaf and isinstance(inner, Mapping) and leaf in inner) or (not leaf and section in flags):
        origin, shown = "flags", name
    elif _variable(name) in os.environ:
        origin, shown = "environment", _variable(name)
    else:
        origin, shown = str(file or "settings"), name
    text = item["msg"].removeprefix("Value error, ")
    value = "" if item["type"] == "missing" or isinstance(item["input"], dict) else f" = {item['input']!r}"
    return InvalidInput(f"{origin}: {shown}{value}: {text}", field=name)
