"""The OpenAPI document is complete, and whatever is sent, the answers are those that it tells."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from flows.access import recommending_tables
from serving.app import ReadyMade, create_app
from tests.brokers import topic_on
from tests.serving.services import SECRET, FakeModel, bearer, settings_of, token
from tests.serving.services import serving as running
from tests.serving.test_routed import filled_tables, settings_in, store_of
from tests.serving.test_search import filled

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@schemathesis.serializer("application/x-ndjson")
def as_it_is(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """The body of a bulk, which its schema says is text."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """The document of an application with tokens."""
    app = create_app(settings_of(tmp_path, auth={"jwt_key": SECRET}), ReadyMade(FakeModel()))
    return app.openapi()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each operation by its method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_routes(document: dict[str, Any]) -> None:
    """The document has each route that users are promised."""
    assert set(operations(document)) == {
        "POST /event",
        "POST /view",
        "PUT /v1/documents/{document_id}",
        "DELETE /v1/documents/{document_id}",
        "POST /v1/documents",
        "PUT /v1/products/{product_id}/inventory",
        "POST /v1/search",
        "GET /v1/users/{user_id}/recommendations",
        "GET /v1/live",
        "GET /health/live",
        "GET /health/ready",
        "GET /metrics",
    }


def test_errors_and_tokens(document: dict[str, Any]) -> None:
    """Each route under a token tells its scope, and its errors as problems with an example."""
    for name, operation in operations(document).items():
        assert operation["summary"], name
        assert operation["description"], name
        if operation["tags"] == ["health"]:
            assert "security" not in operation
            continue
        [need] = operation["security"]
        assert need["token"] == (["write"] if operation["tags"] == ["ingest"] else ["read"])
        statuses = operation["responses"]
        wanted = {"401", "403", "429"}
        if operation["tags"] != ["live"]:
            wanted |= {"422", "503"}
        if "requestBody" in operation:
            wanted |= {"413", "415"}
        assert wanted <= set(statuses), name
        for status, answer in statuses.items():
            if int(status) >= 400:
                content = answer["content"]["application/problem+json"]
                assert content["example"]["status"] == int(status)
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_examples(document: dict[str, Any]) -> None:
    """Each field of each body has an example, a default or a choice."""
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    for name in (
        "Event",
        "View",
        "Inventory",
        "DocumentBody",
        "SearchBody",
        "Accepted",
        "Item",
        "Recommendation",
    ):
        for field, schema in schemas[name]["properties"].items():
            told = {"examples", "default", "enum", "$ref"} & set(schema)
            assert told, f"{name}.{field}"


def test_without_tokens(tmp_path: Path) -> None:
    """Where no tokens are looked at, none are told of."""
    app = create_app(settings_of(tmp_path), ReadyMade(FakeModel()))
    document = app.openapi()
    assert "securitySchemes" not in document["components"]
    for operation in operations(document).values():
        assert "security" not in operation
        assert "401" not in operation["responses"]


@pytest.mark.kafka
def test_whatever_is_sent(broker: Broker, tmp_path: Path) -> None:
    """No made-up request is answered with an error of ours, or otherwise than documented."""
    filled(tmp_path)
    settings_ = settings_of(
        tmp_path,
        auth={"jwt_key": SECRET},
        kafka={"bootstrap_servers": broker.bootstrap_servers},
        source={"topics": topic_on(broker)},
        table={"uri": str(tmp_path), "columns": {"price": "float64"}},
        recommend={"views_topic": topic_on(broker), "inventory_topic": topic_on(broker)},
        serve={"after_timeout_s": 0.1},
    )
    for store in recommending_tables(settings_, FakeModel()).values():
        store.ensure()
    with running(settings_) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for found, mode in product(schema.get_all_operations(), GenerationMode):
            send_anything(found.ok(), mode)


def test_whatever_is_searched(tmp_path: Path) -> None:
    """The same of searches where records name their tables, and tokens those to be searched."""
    auth = {"jwt_key": SECRET, "tables_claim": "tables"}
    configured = settings_in(tmp_path, auth=auth)
    filled_tables(store_of(configured))
    with running(configured) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for mode in GenerationMode:
            send_anything(schema["/v1/search"]["POST"], mode)


def send_anything(operation: schemathesis.APIOperation[Any, Any, Any, Any], mode: Any) -> None:
    """Send made-up requests, good or bad ones, and check the answers."""

    @settings(
        max_examples=10,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(operation.as_strategy(mode))
    def sent(case: schemathesis.Case[Any]) -> None:
        answer = case.call(headers=bearer(token(tables="*")), timeout=30)
        case.validate_response(answer, checks=CHECKS)

    try:
        sent()
    except Unsatisfiable:
        # A request without a body and parameters can't be made wrong.
        assert mode is GenerationMode.NEGATIVE
