"""The refresh: a new bundle with a parent's regressor, under tables as of a later cutoff.

A model's tables age a day each day; its regressor, which learned how tables become sales, ages much more
slowly. A refresh reads the panel up to the new cutoff, makes the tables, and puts the parent's regressor
on them. Only the forecasts of traffic are learned again, from the same days with the same seed. Rules:

1. What the parent decided stays: preset, seed, loss, pace of the base, the day up to which traffic
   taught, and the calibration of the intervals. The scales of the series are measured anew.
2. The regressor must find what it learned from: the same columns in the same order, the same fields, and
   a dataset of the same meaning. Else it is refused with what differs. Where data lie, who licensed them,
   what is held out and how errors are broken down may differ.
3. The cutoff never goes back. At the parent's own cutoff the same data give the parent's own
   ``model.onnx``.
4. Parity, golden vectors, holdout and evidence are made as for any training (``trainer.bundle``), but for
   a backtest; the manifest names the parent.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial

from adapters.bundles import read_file, read_manifest
from adapters.object_store import ObjectStore, S3Settings
from schemas.contract import Contract
from schemas.errors import UsageProblem
from schemas.manifest import MODEL_NAME, Lineage, Manifest, RecipeRecord
from trainer.bundle import Bundle, assemble, contract_of, read_aloud
from trainer.dataset import Dataset, DatasetFile, parse_dataset
from trainer.estimator import Loss, Preset, Recipe, refresh
from trainer.lifted import Lifted, lift
from trainer.lineage import lineage_of
from trainer.options import MEMORY_MB
from trainer.panel import day_of, number_of
from trainer.recorded import recipe_and_lineage
from trainer.sources import open_sources
from trainer.spread import Spread, scale_of
from trainer.structural import Pace
from trainer.training import Backtest, Trained

FREE = {"name", "source", "licence", "attribution", "holdout", "slices", "references"}
"""Keys of a dataset, and of its tables, that may differ between a parent and its refresh."""

_HINT = "train anew instead: modelwire train --dataset D.toml"


@dataclass(frozen=True)
class Parent:
    """A bundle that ``modelwire train`` made, and what a refresh takes from it."""

    digest: str
    manifest: Manifest
    lineage: Lineage
    record: RecipeRecord
    lifted: Lifted

    @property
    def recipe(self) -> Recipe:
        """What the parent's training decided."""
        pace = Pace(
            self.record.effect_half_life, self.record.level_half_life, self.record.shrinkage
        )
        return Recipe(
            preset=Preset(self.lineage.preset),
            loss=Loss(self.record.loss),
            pace=pace,
            seed=self.lineage.seed,
            corrected=self.lifted.regressor is not None,
        )


def read_parent(store: ObjectStore, digest: str) -> Parent:
    """The bundle of this digest. Raises as ``adapters.bundles`` does; UsageProblem for a foreign one."""
    manifest = read_manifest(store, digest)
    record, lineage = recipe_and_lineage(digest, manifest)
    content = read_file(store, digest, manifest, MODEL_NAME)
    return Parent(digest, manifest, lineage, record, lift(content, Loss(record.loss)))


def refresh_bundle(
    file: DatasetFile,
    parent: Parent,
    *,
    created_at: datetime,
    cutoff: date | None = None,
    memory_mb: int = MEMORY_MB,
    s3: S3Settings | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """The parent's regressor under tables as of a cutoff; without one the dataset's ``holdout`` decides.

    Raises UsageProblem where the regressor does not fit, and what ``trainer.bundle.train_bundle`` raises.
    """
    check_same_meaning(file, parent)
    recipe = parent.recipe
    with open_sources(file, s3) as sources:
        panel = read_aloud(file, sources, cutoff, memory_mb, progress)
        _check_cutoff(day_of(panel.cutoff_day), parent)
        if panel.cutoff_day == number_of(date.fromisoformat(parent.lineage.cutoff)):
            note = f"this refresh has nothing newer: its cutoff {parent.lineage.cutoff} is its parent's"
            progress(f"note: {note}")
            panel = replace(panel, notes=(*panel.notes, note))
        progress(f"making the tables of {panel.keys.series:,} series")
        until = number_of(date.fromisoformat(parent.record.outlook_until))
        fitted = refresh(panel, recipe, parent.lifted.regressor, until)
        forecaster = fitted.forecaster(Spread(scale_of(fitted.past), parent.lifted.quantiles))
        _check_columns(forecaster.features, parent)
        _check_fields(contract_of(file.dataset, forecaster), parent)
        lineage = lineage_of(
            file,
            sources,
            fitted,
            chosen=parent.record.chosen,
            features=forecaster.features,
            parent=parent.digest,
        )
    again = partial(refresh, recipe=recipe, regressor=parent.lifted.regressor, outlook_until=until)
    return assemble(
        file,
        panel,
        Trained(forecaster, fitted, Backtest((), parent.record.chosen)),
        lineage,
        again=again,
        created_at=created_at,
        progress=progress,
    )


def check_same_meaning(file: DatasetFile, parent: Parent) -> None:
    """Raises UsageProblem where a dataset means another panel than the parent's did."""
    own = parse_dataset(file.path, parent.lineage.config)
    given, meant = dict(_meaning(file.dataset)), dict(_meaning(own))
    different = [
        f"{name} is {_shown(given, name)}, the parent's is {_shown(meant, name)}"
        for name in {**meant, **given}
        if given.get(name) != meant.get(name)
    ]
    if different:
        raise UsageProblem(
            f"{file.path} is not the dataset of bundle {parent.digest}: {'; '.join(different)}",
            hint=f"mend it, or {_HINT}",
        )


def _meaning(dataset: Dataset) -> Iterator[tuple[str, object]]:
    """Everything that must be the same, by the name of its key. Descriptions of columns may differ."""
    for name, value in dataset.model_dump(mode="json", exclude=FREE).items():
        if name in ("keys", "covariates"):
            yield name, list(value)
        elif name == "attributes":
            for position, each in enumerate(value):
                yield f"attributes.{position}", _without_place(each)
        elif name in ("holidays", "traffic"):
            for part, of_part in _without_place(value or {}).items():
                yield f"{name}.{part}", of_part
        else:
            yield name, value


def _without_place(table: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in table.items() if name not in FREE}


def _shown(meaning: Mapping[str, object], name: str) -> str:
    return repr(meaning[name]) if name in meaning else "not there"


def _check_cutoff(cutoff: date, parent: Parent) -> None:
    if cutoff.isoformat() < parent.lineage.cutoff:
        raise UsageProblem(
            f"the cutoff {cutoff} lies before that of bundle {parent.digest}, {parent.lineage.cutoff}: "
            "its regressor has seen later days",
            hint="name a later day (--cutoff), or train anew",
        )


def _check_columns(features: tuple[str, ...], parent: Parent) -> None:
    learned = parent.record.features
    if features == learned:
        return
    missing = [name for name in learned if name not in features]
    added = [name for name in features if name not in learned]
    said = [f"without {', '.join(missing)}"] if missing else []
    said += [f"with {', '.join(added)}"] if added else []
    raise UsageProblem(
        "the data give other columns than the regressor of bundle "
        f"{parent.digest} reads: {' and '.join(said) or 'in another order'}",
        hint="a longer panel, or a covariate with other values, can have more to learn from; "
        + _HINT,
    )


def _check_fields(contract: Contract, parent: Parent) -> None:
    """Features may agree where fields do not, as with a key whose text became whole numbers."""
    new = {field.name: field.type.value for field in contract.fields}
    old = {field.name: field.type.value for field in parent.manifest.contract.fields}
    different = [
        f"{name} is {new.get(name, 'no field')}, was {old.get(name, 'no field')}"
        for name in {**old, **new}
        if new.get(name) != old.get(name)
    ]
    if different:
        raise UsageProblem(
            f"requests would have other fields than those of bundle {parent.digest}: "
            f"{'; '.join(different)}",
            hint=_HINT,
        )
