"""The JSON of access tokens."""

from datetime import datetime

from pydantic import AwareDatetime, BaseModel, Field

from lwm2m_server.api.models.common import Body, moment, optional_moment
from lwm2m_server.services.access import Role
from lwm2m_server.store import records


class TokenBody(Body):
    """A new access token."""

    name: str = Field(min_length=1, max_length=100, examples=["ci"])
    role: Role = Role.READER
    expires_at: AwareDatetime | None = None


class Token(BaseModel):
    """An access token; its secret is never shown again."""

    id: str
    name: str
    role: Role
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, token: records.Token) -> "Token":
        """Convert the record."""
        return cls(
            id=token.id,
            name=token.name,
            role=Role(token.role),
            created_at=moment(token.created_at),
            expires_at=optional_moment(token.expires_at),
            revoked_at=optional_moment(token.revoked_at),
        )


class NewToken(Token):
    """A token that was just made, with its secret."""

    token: str
