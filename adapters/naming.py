"""The names that people type: models, and ``MODEL:VERSION``; of bundles: ``adapters.bundle_names``."""

from dataclasses import dataclass

from adapters.bundle_names import find_bundle
from adapters.model_name import parse_model
from adapters.object_store import ObjectStore
from adapters.settings import Settings
from deployment.state import Deployment, Release
from schemas.errors import NotFound, UsageProblem


@dataclass(frozen=True)
class VersionName:
    """A model's version as ``sales:12`` names it."""

    model: str
    version: int

    def __str__(self) -> str:
        return f"{self.model}:{self.version}"


def parse_version(text: str) -> VersionName:
    """``MODEL:VERSION``. Raises UsageProblem where it is not that."""
    model, colon, number = text.rpartition(":")
    version = _ordinal(number)
    if not colon or version is None:
        raise UsageProblem(
            f"{text!r} is not a version", hint="write MODEL:VERSION, such as sales:2"
        )
    return VersionName(parse_model(model), version)


def parse_target(text: str) -> tuple[str, int | None]:
    """``MODEL`` or ``MODEL:VERSION``. Raises UsageProblem where it is neither."""
    if ":" not in text:
        return parse_model(text), None
    named = parse_version(text)
    return named.model, named.version


def parse_version_of(model: str, text: str) -> int:
    """A version of ``model``, as ``3`` or ``MODEL:3``. Raises UsageProblem for another model's."""
    version = _ordinal(text)
    if version is not None:
        return version
    named = parse_version(text)
    if named.model != model:
        raise UsageProblem(f"{named} is not a version of {model}", hint=f"write {model}:VERSION")
    return named.version


def _ordinal(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= 9
    return int(text) if is_number and int(text) > 0 else None


def release_in(deployment: Deployment, named: VersionName) -> Release:
    """The release of a version. Raises NotFound where it was never released."""
    release = deployment.releases.get(named.version)
    if release is None:
        raise NotFound(
            f"{named} was never released",
            hint=f"see the released versions: modelwire release list {named.model}",
        )
    return release


def find_version_or_bundle(settings: Settings, store: ObjectStore, text: str) -> str:
    """The digest of the bundle that ``MODEL:VERSION``, or a name that ``find_bundle`` knows, stands for.

    Only a version needs the model's control log. Raises as ``find_bundle`` and ``read_log`` do.
    """
    if ":" not in text or "/" in text or text.startswith("sha256:"):
        return find_bundle(store, text)
    named = parse_version(text)
    # Imported here: a digest must do without Kafka's client.
    from adapters.control_log import read_log

    return release_in(read_log(settings, named.model).deployment, named).digest
