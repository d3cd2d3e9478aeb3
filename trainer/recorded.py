"""The dataset of a bundle: its configuration as the manifest has it, and a folder for its sources.

The text lies in no folder any more, so relative sources are looked for in the folder that the caller
names, and without one in the current folder, then among the datasets that come with the project: the
first that has all of them counts. Whether the files there are the ones that the bundle was trained on is
for ``trainer.reproduction``.
"""

from collections.abc import Iterator
from pathlib import Path

from schemas.errors import NotFound, UsageProblem
from schemas.manifest import Lineage, Manifest, RecipeRecord
from trainer.dataset import Dataset, DatasetFile, parse_dataset, shipped_datasets
from trainer.sources import files_at


def recipe_and_lineage(digest: str, manifest: Manifest) -> tuple[RecipeRecord, Lineage]:
    """What is needed to make a bundle again. Raises UsageProblem where it does not say so much."""
    lineage = manifest.lineage
    if lineage is None or lineage.recipe is None or not lineage.config:
        raise UsageProblem(
            f"bundle {digest} does not say how it was made: its manifest has no "
            f"{'lineage' if lineage is None else 'recipe in its lineage'}",
            hint="only bundles of `modelwire train` do; one of `modelwire bundle create` holds a model "
            "that another tool trained, and that tool has to train it again",
        )
    return lineage.recipe, lineage


def recorded_dataset(digest: str, lineage: Lineage, data: Path | None) -> DatasetFile:
    """The dataset of a bundle with this lineage. Raises NotFound where no folder has its sources."""
    path = Path(f"configuration of bundle {digest.removeprefix('sha256:')[:12]}")
    dataset = parse_dataset(path, lineage.config)
    root = _folder_of(dataset, path) if data is None else data
    return DatasetFile(path=path, text=lineage.config, dataset=dataset, root=root)


def _folder_of(dataset: Dataset, path: Path) -> Path:
    patterns = list(_relative_sources(dataset))
    places = (Path.cwd(), shipped_datasets())
    for folder in places:
        if all(files_at(folder, pattern) for pattern in patterns):
            return folder
    raise NotFound(
        f"the {path} names {', '.join(patterns)}, and neither {places[0]} nor {places[1]} has "
        f"{'it' if len(patterns) == 1 else 'all of them'}",
        hint="name the folder of the data: --data DIR",
    )


def _relative_sources(dataset: Dataset) -> Iterator[str]:
    tables = [*dataset.attributes, dataset.holidays, dataset.traffic]
    for source in (dataset.source, *(each.source for each in tables if each and each.source)):
        yield from (one for one in source if "://" not in one and not Path(one).is_absolute())
