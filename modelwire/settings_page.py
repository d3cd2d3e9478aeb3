"""Writes ``docs/settings.md`` from the settings' docstrings: ``python -m modelwire.settings_page``."""

from pathlib import Path

from pydantic import BaseModel

from adapters.settings import Settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"

HEAD = """# Settings

Made by `make schemas` from `adapters/settings.py`. A key of `modelwire.toml` such as
`consumer.batch_size` is the variable `MODELWIRE_CONSUMER__BATCH_SIZE`. Flags win over variables, they
over the file. `MODELWIRE_CONFIG` names another file, `KAFKA_BOOTSTRAP_SERVERS` and `AWS_*` are
honoured.

| key | default | meaning |
|---|---|---|
"""


def generate() -> str:
    """The page's text."""
    return HEAD + "".join(_rows(Settings, ""))


def _rows(section: type[BaseModel], prefix: str) -> list[str]:
    rows: list[str] = []
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            rows += _rows(annotation, f"{prefix}{name}.")
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = f"`{default}`" if default != "" else ""
        meaning = " ".join((field.description or "").split())
        rows.append(f"| `{prefix}{name}` | {shown} | {meaning} |\n")
    return rows


if __name__ == "__main__":
    PAGE.write_text(generate())
