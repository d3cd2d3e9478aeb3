"""Reading: the sources of a dataset become a panel, within a budget of memory.

Rules:

1. Every row is judged before any is used (``trainer.tables``).
2. Rows of one series and day are added up, or refused (``duplicates``); a day without a row is a day
   with no sales. With ``negatives = "zero"`` a negative row counts as 0 before it is added.
3. Which days there are is ``trainer.span``'s; rows after them are left out. Which series are known is
   decided by days up to the cutoff alone. Held-out days on which all known series are closed are left
   out too: they would measure nothing.
4. The values of a key are whole numbers where its column is of such a type, and in a CSV file where
   every cell is a whole number without zeros in front; else they are text. All rows count here, those
   after the cutoff too: it is the type of a request's field, and says nothing of sales.
5. A covariate whose values up to the cutoff are all 0, 1 or missing is a flag, any other a number. A
   number that is 0 or 1 nearly everywhere may be a flag with a mistake in it, and is noted with its row.
   A flag with another value after the cutoff is refused.

DuckDB holds and sorts the rows, ``trainer.dense`` makes the arrays, and what is left in memory is the
panel itself, of which large arrays are maps of files.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as arrow

from schemas.errors import ModelwireError
from trainer.cells import Column, Purpose, is_number_like
from trainer.dataset import Dataset, DatasetFile, Duplicates, Negatives
from trainer.dense import Combine, Dense, temporary_room
from trainer.holidays import read_holidays
from trainer.keys import Float32s, Floats, Ints, Keys
from trainer.options import MEMORY_MB
from trainer.panel import (
    Attribute,
    Covariate,
    CovariateKind,
    Flags,
    Holidays,
    Panel,
    Traffic,
    day_of,
)
from trainer.side_tables import inline_attribute, read_attributes, read_traffic, weights_of
from trainer.sources import Files, Sources
from trainer.span import Span, read_span
from trainer.tables import Table, Tables

STRAY_SHARE = 0.05
"""A covariate with fewer other values than this share beside 0 and 1 looks like a flag with mistakes."""


def read_panel(
    file: DatasetFile,
    sources: Sources,
    cutoff: date | None = None,
    memory_mb: int = MEMORY_MB,
) -> Panel:
    """The panel of a dataset; ``cutoff`` is the last day that training may see.

    Raises UsageProblem where dataset and sources do not fit together, ModelwireError naming file and
    place of what is wrong in the data.
    """
    with temporary_room(), Tables(file, memory_mb) as tables:
        rows = _Rows(file.dataset, tables, sources.panel)
        span = rows.span(cutoff)
        keys = rows.keys(span)
        panel = _with_side_tables(file.dataset, tables, sources, rows.panel(keys, span))
        sources.check_unchanged()
    return panel


class _Rows:
    """The rows of the panel's source: ``rows`` in SQL, with the columns ``v0`` … of ``columns``."""

    def __init__(self, dataset: Dataset, tables: Tables, files: Files) -> None:
        self._dataset = dataset
        self._tables = tables
        returns = dataset.negatives == Negatives.ZERO
        self._columns = (
            Column(dataset.date, Purpose.DATE, ("date",)),
            Column(
                dataset.target,
                Purpose.RETURNED_UNITS if returns else Purpose.UNITS,
                ("target",),
            ),
            *(Column(name, Purpose.KEY, ("keys", name)) for name in dataset.keys),
            *(Column(name, Purpose.NUMBER, ("covariates", name)) for name in dataset.covariates),
            *(
                Column(column, Purpose.NUMBER, ("references", name))
                for name, column in dataset.references.items()
            ),
        )
        self._table: Table = tables.load("rows", files, self._columns)
        self._shown = self._table.shown
        self._numbers_at = 2 + len(dataset.keys)
        self._notes: list[str] = []
        if dataset.duplicates == Duplicates.REFUSE:
            self._refuse_duplicates()
        self._values: list[list[str] | list[int]] = [
            self._code_values(position) for position in range(len(dataset.keys))
        ]

    def span(self, asked: date | None) -> Span:
        """The days of the panel; rows after the last of them are noted."""
        span = read_span(self._dataset, self._tables, self._table, asked)
        if late := self._tables.number(f"SELECT count(*) FROM rows WHERE v0 > {span.last}"):
            self._notes.append(
                f"{late:,} rows after {day_of(span.last)}, the last day that the model answers for, are "
                "left out"
            )
        return span

    def keys(self, span: Span) -> Keys:
        """The keys of the known series; their vocabularies hold only values that a series has.

        Leaves in SQL the table ``known`` with each series' codes and its position.
        """
        dataset = self._dataset
        names = [f"c{position}" for position in range(len(dataset.keys))]
        self._tables.do(self._coded_view(names))
        listed = ", ".join(names)
        self._tables.do(
            f"CREATE TABLE known AS SELECT {listed}, row_number() OVER (ORDER BY {listed}) - 1 AS"
            f" series FROM coded WHERE v0 BETWEEN {span.cutoff - dataset.recent_days + 1} AND"
            f" {span.cutoff} GROUP BY {listed}"
            f" HAVING count(DISTINCT v0) FILTER (v1 > 0) >= {dataset.min_days}"
        )
        found = self._tables.rows(f"SELECT {listed} FROM known ORDER BY series")
        if not found:
            raise ModelwireError(
                f"the panel has no series to learn from: none in {self._shown} sold on "
                f"{dataset.min_days} of the {dataset.recent_days} days up to {day_of(span.cutoff)}",
                hint="lower `min_days` or raise `recent_days`",
            )
        vocabulary, codes = [], []
        for column, values in zip(np.asarray(found).T, self._values, strict=True):
            present, code = np.unique(column, return_inverse=True)
            vocabulary.append(tuple(values[i] for i in present))
            codes.append(code)
        return Keys(
            names=tuple(dataset.keys),
            vocabulary=tuple(vocabulary),
            codes=np.asarray(codes, dtype=np.int64),
        )

    def panel(self, keys: Keys, span: Span) -> Panel:
        """The panel without its side tables."""
        dataset = self._dataset
        kinds = [
            self._kind_of(name, self._numbers_at + position, span)
            for position, name in enumerate(dataset.covariates)
        ]
        combine = (
            Combine.SUM,
            *(Combine.ANY if kind == CovariateKind.FLAG else Combine.MEAN for kind in kinds),
            *(Combine.MEAN for _ in dataset.references),
        )
        dense = Dense(keys.series, span.days, combine)
        units, *others = dense.fill(self._batches(span))
        covariates = tuple(
            Covariate(name, kind, description, values)
            for (name, description), kind, values in zip(
                dataset.covariates.items(), kinds, others[: len(kinds)], strict=True
            )
        )
        self._note_treatments(dense.doubled, span)
        cutoff = span.cutoff - span.first
        self._refuse_nothing_to_learn(units, cutoff, span)
        closed = self._closed(covariates)
        known = slice(span.days)
        if closed is not None and span.last > span.cutoff and closed[:, cutoff + 1 :].all():
            self._notes.append(
                f"all known series are closed on the held-out days {day_of(span.cutoff + 1)} … "
                f"{day_of(span.last)}, so nothing is held out"
            )
            span, known = replace(span, last=span.cutoff), slice(cutoff + 1)
        return Panel(
            keys=keys,
            units=units[:, known],
            first_day=span.first,
            cutoff=cutoff,
            horizon=dataset.horizon,
            unit_share=self._unit_share(span),
            covariates=tuple(replace(each, values=each.values[:, known]) for each in covariates),
            closed=None if closed is None else closed[:, known],
            closed_by=self._dataset.closed,
            references={
                name: values[:, known]
                for name, values in zip(dataset.references, others[len(kinds) :], strict=True)
            },
            notes=tuple(self._notes),
        )

    def _code_values(self, key: int) -> list[str] | list[int]:
        """The sorted values of a key; leaves the SQL table ``key<n>`` of each value and its code."""
        column = f"v{2 + key}"
        raw = [
            row[0] for row in self._tables.rows(f"SELECT DISTINCT {column} FROM rows ORDER BY 1")
        ]
        values: list[str] | list[int]
        if self._table.types[2 + key] == "BIGINT":
            values = [int(value) for value in raw]
            coded = arrow.table({"value": values})
        elif self._table.is_csv and is_number_like(raw):
            values = sorted(int(value) for value in raw)
            coded = arrow.table({"value": [str(value) for value in values]})
        else:
            # DuckDB sorts text by its bytes in UTF-8, which is Python's order by code point.
            values = [str(value) for value in raw]
            coded = arrow.table({"value": values})
        coded = coded.append_column("code", arrow.array(np.arange(len(values))))
        self._tables.store(f"key{key}", coded)
        return values

    def _coded_view(self, names: list[str]) -> str:
        joins = " ".join(
            f"JOIN key{position} ON rows.v{2 + position} = key{position}.value"
            for position in range(len(names))
        )
        codes = ", ".join(f"key{position}.code AS {name}" for position, name in enumerate(names))
        return f"CREATE VIEW coded AS SELECT rows.rowid AS row, rows.*, {codes} FROM rows {joins}"

    def _batches(self, span: Span) -> Iterator[tuple[Ints, list[Floats]]]:
        """Cells of the known series, ascending, with units and the other numbers of their rows."""
        codes = " AND ".join(
            f"coded.c{position} = known.c{position}" for position in range(len(self._dataset.keys))
        )
        numbers = [f"v{i}" for i in range(self._numbers_at, len(self._columns))]
        selected = ", ".join(["greatest(v1, 0)", *numbers])
        for batch in self._tables.chunks(
            f"SELECT known.series * {span.days} + (v0 - {span.first}) AS cell, {selected}"
            f" FROM coded JOIN known ON {codes} WHERE v0 <= {span.last} ORDER BY cell, row"
        ):
            cells, *values = (column.to_numpy(zero_copy_only=False) for column in batch.columns)
            yield cells, values

    def _kind_of(self, name: str, position: int, span: Span) -> CovariateKind:
        value = f"v{position}"
        early, late = f"v0 <= {span.cutoff}", f"v0 BETWEEN {span.cutoff + 1} AND {span.last}"
        strays = f"{value} IS NOT NULL AND {value} NOT IN (0, 1)"
        [[count, others, row, first_late]] = self._tables.rows(
            f"SELECT count({value}) FILTER ({early}), count(*) FILTER ({early} AND {strays}),"
            f" min(rowid) FILTER ({early} AND {strays}), min(rowid) FILTER ({late} AND {strays})"
            " FROM rows"
        )
        if not count:
            raise ModelwireError(
                f"{self._shown}: column {name!r} has no value in any row up to the cutoff "
                f"{day_of(span.cutoff)}",
                hint="drop it from [covariates]",
            )
        if not others and first_late is not None:
            found = self._number_at(first_late, value)
            raise ModelwireError(
                f"{self._table.place(first_late)}, column {name!r} is {found} after the cutoff "
                f"{day_of(span.cutoff)}, and 0 or 1 in every row up to it",
                hint="mend it; or name a later --cutoff, so that training sees that it is a number",
            )
        if others and others < STRAY_SHARE * count:
            more = f" (and {others - 1:,} more rows)" if others > 1 else ""
            self._notes.append(
                f"column {name!r} is a number and no flag: {self._table.place(row)} has "
                f"{self._number_at(row, value)}{more}, all others have 0 or 1"
            )
        return CovariateKind.NUMBER if others else CovariateKind.FLAG

    def _number_at(self, row: int, value: str) -> str:
        return f"{self._tables.rows(f'SELECT {value} FROM rows WHERE rowid = {row}')[0][0]:g}"

    def _closed(self, covariates: tuple[Covariate, ...]) -> Flags | None:
        for covariate in covariates:
            if covariate.name == self._dataset.closed:
                if covariate.kind != CovariateKind.FLAG:
                    raise ModelwireError(
                        f"{self._shown}: column {covariate.name!r} is named by `closed` and has "
                        "values other than 0 and 1",
                        hint="write 1 on days known to be closed and 0 on others",
                    )
                return np.asarray(covariate.values == 1)
        return None

    def _unit_share(self, span: Span) -> float:
        """The known series' share of the units of open held-out days, by exact sums of millionths."""
        if span.last == span.cutoff:
            return float("nan")
        codes = ", ".join(f"c{position}" for position in range(len(self._dataset.keys)))
        shut = "false"
        if self._dataset.closed:
            column = self._numbers_at + list(self._dataset.covariates).index(self._dataset.closed)
            # A day that one of its rows calls closed is closed.
            shut = f"max(coalesce(v{column}, 0)) = 1"
        [[of_known, total]] = self._tables.rows(
            f"SELECT sum(units) FILTER (({codes}) IN (SELECT ({codes}) FROM known)), sum(units)"
            f" FROM (SELECT {codes}, sum(greatest(v1, 0)::DECIMAL(30, 6)) AS units FROM coded"
            f" WHERE v0 BETWEEN {span.cutoff + 1} AND {span.last} GROUP BY {codes}, v0"
            f" HAVING NOT {shut})"
        )
        if not of_known:
            nothing = "the known series sold nothing" if total else "nothing was sold"
            kept = "open held-out days of" if self._dataset.closed else "held-out days"
            raise ModelwireError(
                f"{nothing} on the {kept} {day_of(span.cutoff + 1)} … "
                f"{day_of(span.last)} of {self._shown}, so no error can be measured",
                hint="raise `holdout`, or cut the empty days off the panel",
            )
        return float(of_known / total)

    def _note_treatments(self, doubled: int, span: Span) -> None:
        if doubled:
            self._notes.append(f"{doubled:,} series and days have several rows, which are added up")
        if returned := self._tables.number("SELECT count(*) FROM rows WHERE v1 < 0"):
            self._notes.append(
                f"{returned:,} rows with negative {self._dataset.target} count as no sales"
            )
        seen = self._tables.number(f"SELECT count(DISTINCT v0) FROM rows WHERE v0 <= {span.last}")
        if seen < span.days:
            self._notes.append(
                f"{span.days - seen:,} days have no row at all and count as days with no sales"
            )

    def _refuse_nothing_to_learn(self, units: Float32s, cutoff: int, span: Span) -> None:
        value = units[0, 0]
        # A series at a time: the first that differs ends it, and the array may be larger than memory.
        if all((series[: cutoff + 1] == value).all() for series in units):
            raise ModelwireError(
                f"{self._shown}: column {self._dataset.target!r} is {value:g} for every series on "
                f"every day up to {day_of(span.cutoff)}, so there is nothing to learn",
                hint="name the column that holds the sales",
            )

    def _refuse_duplicates(self) -> None:
        """With ``duplicates = "refuse"``: names the first row that repeats a series and day."""
        dataset = self._dataset
        by = ", ".join(f"v{position}" for position in [0, *range(2, 2 + len(dataset.keys))])
        self._tables.do(
            f"CREATE TEMP TABLE doubled AS SELECT {by}, min(rowid) AS first, count(*) - 1 AS more"
            f" FROM rows GROUP BY {by} HAVING count(*) > 1"
        )
        count = self._tables.number("SELECT sum(more) FROM doubled")
        if not count:
            return
        same = " AND ".join(f"rows.{column} = doubled.{column}" for column in by.split(", "))
        [[second, first]] = self._tables.rows(
            f"SELECT min(rows.rowid), min(first) FROM doubled JOIN rows ON {same} AND"
            " rows.rowid > first GROUP BY first ORDER BY 1 LIMIT 1"
        )
        more = f" (and {count - 1:,} more)" if count > 1 else ""
        raise ModelwireError(
            f"{self._table.place(second)} repeats the series and day of "
            f"{self._table.place(first)}{more}",
            hint='drop one, or say `duplicates = "sum"` where they are parts of a day',
        )


def _with_side_tables(dataset: Dataset, tables: Tables, sources: Sources, panel: Panel) -> Panel:
    attributes: list[Attribute] = []
    files = iter(sources.attributes)
    for position, each in enumerate(dataset.attributes):
        if each.source is None:
            attributes.append(inline_attribute(each, panel.keys))
        else:
            attributes += read_attributes(tables, position, each, next(files), panel.keys)
    notes = list(panel.notes)
    for attribute in attributes:
        if unknown := int((attribute.codes < 0).sum()):
            notes.append(f"{attribute.name} is unknown for {unknown:,} values of {attribute.key}")
    traffic: Traffic | None = None
    if dataset.traffic:
        traffic, note = read_traffic(
            tables, dataset.traffic, sources.traffic, panel.keys, panel.cutoff_day
        )
        notes.append(note)
    holidays: Holidays | None = None
    if dataset.holidays:
        holidays, note = read_holidays(
            tables,
            dataset.holidays,
            sources.holidays,
            panel.keys,
            tuple(attributes),
            min(panel.first_day, traffic.first_day if traffic else panel.first_day),
            panel.cutoff_day + panel.horizon,
        )
        notes.append(note)
    return replace(
        panel,
        attributes=tuple(attributes),
        traffic=traffic,
        holidays=holidays,
        weights=weights_of(dataset.weights, panel.keys, attributes),
        notes=tuple(note for note in notes if note),
    )
