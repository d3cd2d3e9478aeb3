"""Lineage: what a model was made of, enough to make it again."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from schemas.manifest import Lineage, Source, digest_of
from trainer.dataset import DatasetFile
from trainer.estimator import Preset
from trainer.panel import Panel, day_of

PACKAGES = (
    "modelwire", "numpy", "onnx", "onnxruntime", "pyarrow", "scikit-learn", "scipy", "skl2onnx",
)  # fmt: skip
"""Distributions whose version can change the model's bytes or its answers."""


def lineage_of(
    file: DatasetFile, content: bytes, panel: Panel, preset: Preset, seed: int
) -> Lineage:
    """The lineage of a model trained on ``panel``, which was read from the source's ``content``."""
    dataset = file.dataset
    source = Source(
        name=file.source.name,
        digest=digest_of(content),
        size=len(content),
        licence=dataset.licence,
        attribution=dataset.attribution,
    )
    return Lineage(
        sources=(source,),
        config=file.text,
        preset=preset.value,
        seed=seed,
        cutoff=day_of(panel.cutoff_day).isoformat(),
        packages={name: metadata.version(name) for name in PACKAGES},
        python=platform.python_version(),
        git_commit=_git_commit(),
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
