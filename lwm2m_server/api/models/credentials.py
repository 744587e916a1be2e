"""The JSON of credentials, authorities and the server's own key."""

import base64
from datetime import datetime

from cryptography import x509
from pydantic import BaseModel, Field

from lwm2m_server.api.models.common import Body, moment, optional_moment
from lwm2m_server.devices.identities import Kind, Source
from lwm2m_server.services.credential_import import ImportReport
from lwm2m_server.services.credential_input import Material
from lwm2m_server.services.credentials import MAX_OVERLAP
from lwm2m_server.services.server_key import ServerKey
from lwm2m_server.store import records

_MAX_TEXT = 16_384


class MaterialBody(Body):
    """What a credential consists of; which members it takes depends on its kind."""

    identity: str = Field(
        "", max_length=400, description="Of a pre-shared key; else of what is given", examples=["meter-1"]
    )
    key: str = Field("", max_length=400, description="Pre-shared key in hex; none: one is made", repr=False)
    public_key: str = Field("", max_length=_MAX_TEXT, description="PEM, or DER in hex or base64")
    certificate: str = Field("", max_length=_MAX_TEXT, description="PEM, or DER in hex or base64")

    def material(self) -> Material:
        """Convert it."""
        return Material(
            identity=self.identity,
            key=self.key,
            public_key=self.public_key,
            certificate=self.certificate,
        )


class CredentialBody(MaterialBody):
    """A new credential."""

    kind: Kind
    endpoint: str = Field(min_length=1, max_length=255, examples=["meter-1"])


class RotationBody(MaterialBody):
    """A new key for a device that has one."""

    overlap: float = Field(
        86_400.0, ge=0, le=MAX_OVERLAP, description="Seconds for which the old one counts beside it"
    )


class Credential(BaseModel):
    """What proves who a device is. Pre-shared keys are never shown."""

    identity: str = Field(examples=["psk:meter-1"])
    kind: Kind
    endpoint: str
    public_key: str | None = Field(description="DER in base64")
    certificate: str | None = Field(description="DER in base64")
    authority: str | None = Field(description="Id of the authority that vouched for it")
    previous_until: datetime | None = Field(description="The key before counts until then")
    rotated_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, credential: records.Credential) -> "Credential":
        """Convert the record."""
        public = None if credential.public is None else base64.b64encode(credential.public).decode()
        return cls(
            identity=credential.identity,
            kind=Kind(credential.kind),
            endpoint=credential.endpoint,
            public_key=public if credential.kind == Kind.RPK else None,
            certificate=public if credential.kind == Kind.X509 else None,
            authority=credential.authority,
            previous_until=optional_moment(credential.previous_until),
            rotated_at=optional_moment(credential.rotated_at),
            expires_at=optional_moment(credential.expires_at),
            revoked_at=optional_moment(credential.revoked_at),
            created_at=moment(credential.created_at),
            created_by=credential.created_by,
        )


class NewCredential(Credential):
    """A credential that was just made or rotated; `key` is there when the server made it, this once."""

    key: str | None = Field(description="Pre-shared key in hex")

    @classmethod
    def made(cls, credential: records.Credential, key: bytes | None) -> "NewCredential":
        """Convert record and key."""
        shown = Credential.of(credential).model_dump()
        return cls(**shown, key=None if key is None else key.hex())


class RefusedLine(BaseModel):
    """A line that was not imported."""

    line: int
    code: str
    field: str
    detail: str


class Import(BaseModel):
    """What became of the lines of a file."""

    lines: int = Field(description="Lines with a credential")
    added: int
    unchanged: int = Field(description="There already, with the same endpoint and key")
    refused: int
    refusals: list[RefusedLine]

    @classmethod
    def of(cls, report: ImportReport) -> "Import":
        """Convert the report."""
        return cls(
            lines=report.lines,
            added=report.added,
            unchanged=report.unchanged,
            refused=len(report.refused),
            refusals=[
                RefusedLine(line=each.line, code=each.code, field=each.field, detail=each.text)
                for each in report.refused
            ],
        )


class AuthorityBody(Body):
    """An issuer of devices' certificates."""

    name: str = Field(min_length=1, max_length=100, examples=["factory"])
    certificate: str = Field(min_length=1, max_length=_MAX_TEXT, description="PEM, or DER in hex or base64")
    source: Source = Field(description="Names that hold the endpoint name; none: fingerprints alone count")
    pattern: str = Field("", max_length=200, examples=["urn:imei:{endpoint}"])


class Authority(BaseModel):
    """An issuer whose certificates are taken, and where the endpoint name stands in them."""

    id: str
    name: str
    subject: str
    source: Source
    pattern: str
    expires_at: datetime
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, authority: records.Authority) -> "Authority":
        """Convert the record."""
        certificate = x509.load_der_x509_certificate(authority.certificate)
        return cls(
            id=authority.id,
            name=authority.name,
            subject=certificate.subject.rfc4514_string(),
            source=Source(authority.source),
            pattern=authority.pattern,
            expires_at=certificate.not_valid_after_utc,
            created_at=moment(authority.created_at),
            created_by=authority.created_by,
        )


class ServerIdentity(BaseModel):
    """How devices know the server."""

    identity: str = Field(description="Of the raw public key")
    public_key: str = Field(description="SubjectPublicKeyInfo, DER in base64")
    certificate: str | None = Field(description="The chain in PEM")
    certificate_expires_at: datetime | None

    @classmethod
    def of(cls, key: ServerKey) -> "ServerIdentity":
        """Convert it."""
        return cls(
            identity=key.identity,
            public_key=base64.b64encode(key.public_key).decode(),
            certificate=None if key.certificate is None else key.certificate.decode(),
            certificate_expires_at=optional_moment(key.expires_at),
        )
