"""The JSON Schemas that other programs rely on are those of the code."""

import json

import pytest

from schemas.publish import PUBLISHED, generate


def test_the_published_schemas_are_up_to_date() -> None:
    """``schemas/published`` holds exactly what ``python -m schemas.publish`` would write."""
    on_disk = {path.name: path.read_bytes() for path in PUBLISHED.iterdir()}
    assert on_disk.keys() == generate().keys()
    stale = [name for name, text in generate().items() if on_disk[name] != text]
    assert not stale, "run python -m schemas.publish, and check that no promise is broken"


@pytest.mark.parametrize("name", sorted(generate()))
def test_a_schema_is_a_json_document_with_a_name(name: str) -> None:
    """Each schema says its dialect and its own name, and resolves its references in itself."""
    schema = json.loads(generate()[name])
    assert schema["$id"] == f"urn:modelwire:{name.removesuffix('.schema.json')}"
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["$ref"].removeprefix("#/$defs/") in schema["$defs"]
