"""The JSON of object definitions."""

from pydantic import BaseModel, Field

from lwm2m_server.lwm2m.model import ObjectDefinition


class Resource(BaseModel):
    """A resource of an object definition."""

    id: int
    name: str
    operations: str = Field(description="Of R, W, E")
    multiple: bool
    mandatory: bool
    type: str
    range: str
    units: str
    description: str


class ObjectSummary(BaseModel):
    """An object that the server has a definition of."""

    id: int
    version: str
    name: str
    urn: str
    mandatory: bool
    multiple: bool
    description: str

    @classmethod
    def of(cls, definition: ObjectDefinition) -> "ObjectSummary":
        """Convert the definition."""
        return cls(**{name: getattr(definition, name) for name in ObjectSummary.model_fields})


class ObjectDetails(ObjectSummary):
    """An object definition with its resources."""

    resources: list[Resource]

    @classmethod
    def of(cls, definition: ObjectDefinition) -> "ObjectDetails":
        """Convert the definition."""
        resources = [
            Resource(**{name: getattr(item, name) for name in Resource.model_fields})
            for item in definition.resources.values()
        ]
        summary = {name: getattr(definition, name) for name in ObjectSummary.model_fields}
        return cls(**summary, resources=resources)
