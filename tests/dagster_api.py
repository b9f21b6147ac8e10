"""The API behind Dagster's UI, as ``atelier dev`` serves it."""

from typing import Any

from tests.servers import get

LOCATION = {"repositoryLocationName": "orchestration.definitions", "repositoryName": "__repository__"}


def ask(url: str, query: str, **variables: Any) -> Any:
    """The data with which Dagster at ``url`` answers a GraphQL query."""
    answer = get(f"{url}/graphql", {"query": query, "variables": variables})
    assert "errors" not in answer, answer["errors"]
    return answer["data"]
