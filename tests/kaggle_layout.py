"""A made-up panel in the very layout of the Favorita competition: its files, with what is odd in them.

``train.csv`` has a row only where something was sold or came back: numbers such as ``7.0``, goods by
weight, returns below 0, and in the first years no word on promotions. Holidays are transferred, bridged,
regional, local, or of a city without a store; the price of oil is missing at weekends.
"""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from trainer.chain import Design
from trainer.generator import generate

FILES = (
    "train.csv", "stores.csv", "items.csv", "holidays_events.csv", "transactions.csv", "oil.csv",
)  # fmt: skip

PERISHABLE_WEIGHT = 1.25


def write_kaggle_layout(design: Design, folder: Path, promotions_from: date) -> None:
    """Writes the files into a folder. Before ``promotions_from`` the column ``onpromotion`` is empty."""
    dataset = generate(design, folder).dataset
    panel = folder / "train.parquet"
    random = np.random.default_rng([design.seed, 9])
    _train(pq.read_table(panel).to_pandas(), random, promotions_from).to_csv(
        folder / "train.csv", index_label="id"
    )
    dataset.unlink()
    panel.unlink()
    items = pd.read_csv(folder / "items.csv")
    items.insert(2, "class", 1000 + 13 * items["family"].factorize()[0] + items["item_nbr"] % 3)
    items.to_csv(folder / "items.csv", index=False)
    _more_holidays(folder, design)
    _oil(design, random).to_csv(folder / "oil.csv", index=False)


def _train(frame: pd.DataFrame, random: np.random.Generator, promotions_from: date) -> pd.DataFrame:
    sold = frame["unit_sales"].to_numpy().astype(np.float64)
    by_weight = frame["item_nbr"].to_numpy() % 5 == 0
    sold[by_weight] = np.round(0.731 * sold[by_weight], 3)
    returned = (sold == 0) & (random.random(len(sold)) < 0.2)
    sold[returned] = -random.integers(1, 5, int(returned.sum()))
    promoted = frame["onpromotion"].map({True: "True", False: "False"})
    early = pd.to_datetime(frame["date"]).dt.date < promotions_from
    frame = frame.assign(unit_sales=sold, onpromotion=promoted.mask(early, ""))
    frame = frame[frame["unit_sales"] != 0].sort_values(["date", "store_nbr", "item_nbr"])
    return frame.reset_index(drop=True)


def _more_holidays(folder: Path, design: Design) -> None:
    holidays = pd.read_csv(folder / "holidays_events.csv", dtype=str)
    state = pd.read_csv(folder / "stores.csv")["state"].iloc[0]
    last = design.start + timedelta(days=design.days - 1)
    more = [
        (last - timedelta(days=5), "Holiday", "Regional", state, "Provincializacion"),
        (last - timedelta(days=33), "Holiday", "Regional", state, "Provincializacion"),
        (last - timedelta(days=9), "Additional", "National", "Ecuador", "Dia de la Madre-1"),
        (last - timedelta(days=8), "Bridge", "National", "Ecuador", "Puente"),
        (last - timedelta(days=4), "Work Day", "National", "Ecuador", "Recupero puente"),
        (last - timedelta(days=3), "Holiday", "Local", "Puyo", "Fundacion, and no store there"),
    ]
    added = pd.DataFrame(
        [(str(day), *rest, "False") for day, *rest in more], columns=holidays.columns
    )
    everything = pd.concat([holidays, added]).sort_values("date", kind="stable")
    everything.to_csv(folder / "holidays_events.csv", index=False)


def _oil(design: Design, random: np.random.Generator) -> pd.DataFrame:
    days = pd.date_range(design.start, periods=design.days, freq="B")
    price = np.round(60 + random.normal(0, 0.8, len(days)).cumsum(), 2)
    return pd.DataFrame(
        {"date": days, "dcoilwtico": np.where(days.day_of_year == 1, np.nan, price)}
    )
