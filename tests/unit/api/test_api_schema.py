"""The API keeps what its OpenAPI document says.

Requests, good and bad, are made from the document: each answer has a status, a content type and a body that the
document names, and nothing is ever a 500.
"""

from datetime import timedelta

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from certificates import authority
from lwm2m_server.api import create_app
from lwm2m_server.config import Settings
from lwm2m_server.lwm2m.model import ObjectRegistry


@schemathesis.serializer("application/x-pem-file", "application/suit-envelope+cose", "text/csv")
def as_bytes(_context, value) -> bytes:
    """Files are sent as they are."""
    return value if isinstance(value, bytes) else str(value).encode()


CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
DOCUMENT = create_app(None, Settings(), ObjectRegistry()).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
STREAMS = {"/api/v1/events"}  # never end
OPERATIONS = {
    f"{operation.ok().method.upper()} {operation.ok().path}": operation.ok()
    for operation in SCHEMA.get_all_operations()
    if operation.ok().path not in STREAMS
}
EXAMPLES = 12


def send(bridge, case) -> httpx.Response:
    """Send a case as the administrator."""
    given_request = case.as_transport_kwargs(base_url="http://test")
    given_request.pop("cookies", None)
    prepared = requests.Request(**given_request).prepare()
    headers = {
        name: value
        for name, value in prepared.headers.items()
        if name.lower() not in {"authorization", "cookie"}
    }
    headers["Authorization"] = f"Bearer {bridge.world.tokens['admin']}"
    body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
    content = body if isinstance(body, bytes) else b""
    request = httpx.Request(prepared.method, prepared.url, headers=headers, content=content)
    response = bridge.handle_request(request)
    response.request = request
    response.elapsed = timedelta()
    return response


@pytest.fixture
def known(bridge, release):
    """Return names of things that exist."""
    world = bridge.world

    async def fill():
        await world.register("pump-1")
        async with world.client() as http:
            manifest = await release.publish(http)
            body = {"name": "pumps", "manifest_id": manifest}
            campaign = (await http.post("/api/v1/campaigns", json=body)).json()["id"]
            device = {"kind": "psk", "endpoint": "pump-1"}
            identity = (await http.post("/api/v1/credentials", json=device)).json()["identity"]
            issuer = {"name": "factory", "certificate": authority(), "source": "cn", "pattern": "{endpoint}"}
            issuer_id = (await http.post("/api/v1/authorities", json=issuer)).json()["id"]
            token = (await http.post("/api/v1/tokens", json={"name": "spare"})).json()["id"]
        await world.deploy(campaign, "pump-1", "downloading")
        return {
            "endpoint": "pump-1",
            "path": "3/0/9",
            "digest": release.digest,
            "key_id": release.key.public.key_id.hex(),
            "manifest_id": manifest,
            "campaign_id": campaign,
            "object_id": 3,
            "token_id": token,
            "identity": identity,
            "authority_id": issuer_id,
            "name": "boot.version",
        }

    return bridge.run(fill())


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_is_one_that_the_document_names(bridge, known, name, mode) -> None:
    operation = OPERATIONS[name]
    names = [parameter.name for parameter in operation.path_parameters]
    if mode is GenerationMode.NEGATIVE and not (
        names or list(operation.query) or list(operation.headers) or list(operation.body)
    ):
        return  # it takes nothing that could be wrong
    present = {parameter: known[parameter] for parameter in names}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def run(data) -> None:
        strategy = operation.as_strategy(generation_mode=mode)
        if present:
            strategy = strategy | operation.as_strategy(generation_mode=mode, path_parameters=present)
        case = data.draw(strategy)
        response = send(bridge, case)
        assert response.status_code != 500, response.text
        case.validate_response(response, checks=CHECKS)
        if response.is_error:
            problem = response.json()
            assert response.headers["content-type"] == "application/problem+json"
            assert problem["status"] == response.status_code
            assert problem["code"]
            assert problem["detail"]

    run()


def test_every_operation_has_a_summary_a_description_and_its_problems() -> None:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (where, status)
            if path.startswith("/api/"):
                assert operation["security"] == [{"token": []}], where


def test_operation_ids_are_unique() -> None:
    names = [operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)
