"""Writes the JSON Schemas of the wire language to ``published/``: ``python -m schemas.publish``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from schemas.contract import Contract
from schemas.events import EVENT_TYPES, ControlEvent
from schemas.fleet import InstanceStatus
from schemas.forecast import Forecast
from schemas.manifest import GoldenVector, Manifest
from schemas.rejection import Rejection
from schemas.request import Request

PUBLISHED = Path(__file__).parent / "published"

DOCUMENTS: Mapping[str, type] = {
    "contract": Contract,
    "control-event": ControlEvent,
    "fleet-status": InstanceStatus,
    "forecast": Forecast,
    "golden-vector": GoldenVector,
    "manifest": Manifest,
    "rejection": Rejection,
    "request": Request,
} | {name.removeprefix("io.modelwire."): data for name, data in EVENT_TYPES.items()}


def generate() -> dict[str, bytes]:
    """File name -> the schema's text."""
    return {f"{name}.schema.json": _text(name, shape) for name, shape in DOCUMENTS.items()}


def _text(name: str, shape: type) -> bytes:
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:modelwire:{name}",
        **msgspec.json.schema(shape),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


if __name__ == "__main__":
    PUBLISHED.mkdir(exist_ok=True)
    for file_name, text in generate().items():
        (PUBLISHED / file_name).write_bytes(text)
