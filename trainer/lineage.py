"""Lineage: what a model was made of, enough to make it again."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from schemas.manifest import Lineage, PinRecord, RecipeRecord, Source
from trainer.dataset import Dataset, DatasetFile
from trainer.estimator import Fitted
from trainer.panel import day_of
from trainer.sources import SourceFile, Sources

PACKAGES = (
    "duckdb", "modelwire", "numpy", "onnx", "onnxruntime", "pandas", "pandera", "pyarrow",
    "scikit-learn", "scipy", "skl2onnx",
)  # fmt: skip
"""Distributions whose version can change the model's bytes or its answers."""


def lineage_of(
    file: DatasetFile,
    sources: Sources,
    fitted: Fitted,
    *,
    chosen: str,
    features: tuple[str, ...],
    parent: str = "",
) -> Lineage:
    """The lineage of what was fitted on a panel that was read from ``sources``."""
    panel, recipe = fitted.panel, fitted.recipe
    return Lineage(
        sources=tuple(_source(each, file.dataset) for each in sources.all),
        config=file.text,
        preset=recipe.preset.value,
        seed=recipe.seed,
        cutoff=day_of(panel.cutoff_day).isoformat(),
        packages={name: metadata.version(name) for name in PACKAGES},
        python=platform.python_version(),
        git_commit=_git_commit(),
        recipe=RecipeRecord(
            chosen=chosen,
            loss=recipe.loss.value,
            effect_half_life=recipe.pace.effect_half_life,
            level_half_life=recipe.pace.level_half_life,
            shrinkage=recipe.pace.shrinkage,
            outlook_until=day_of(fitted.outlook_until).isoformat(),
            features=features,
        ),
        parent=parent,
    )


def _source(file: SourceFile, dataset: Dataset) -> Source:
    return Source(
        name=file.name,
        digest=file.digest,
        size=file.size,
        licence=dataset.licence,
        attribution=dataset.attribution,
        pin=None if file.pin is None else PinRecord(file.pin.md5, file.pin_name),
    )


def _git_commit() -> str:
    """The commit of this code, with ``-dirty`` where it was changed since; empty without one.

    Installed code may lie inside somebody else's checkout, so the checkout must track this file.
    """
    here = Path(__file__)
    if _git(here, "ls-files", "--error-unmatch", here.name) is None:
        return ""
    return _git(here, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or ""


def _git(here: Path, *arguments: str) -> str | None:
    """What git says, or None where it is not installed, fails or does not return."""
    try:
        done = subprocess.run(
            ["git", "-C", str(here.parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
