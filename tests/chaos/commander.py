"""Gives the commands of a chaos run to the control log, by the log's own append, on threads of its own.

A command that is in doubt, or that no broker answers, is given again with the same id until the log has
it or refuses it. Scheduled commands and a flood race with each other, as people do.
"""

import itertools
import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import TypeVar

from adapters.control_append import append
from adapters.control_log import read_log
from adapters.fleet_topic import live_instances
from deployment.commands import Command as Given
from deployment.state import Deployment
from schemas.errors import ModelwireError, NotFound, RefusedByRule
from tests.bundles import store_bundle
from tests.chaos.commands import choose
from tests.chaos.schedule import Ask, Command, Flood
from tests.fleet import Harness

PATIENCE_SECONDS = 240.0
"""For one command, through every outage of the broker."""

TOLD_SECONDS = 10.0
"""A flood says how far it is this often."""

Outcome = TypeVar("Outcome")

TABLE_BYTES = 60_000
"""Of each bundle: enough for a store that is slow, cut off or flipping bits to spoil."""


class Commander:
    """Starts with ``start``; after ``close`` it is done when what was ordered is."""

    def __init__(self, harness: Harness, say: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        """Commands by kind, those that were refused, and the ``events`` that they made.

        ``flooded`` counts those of floods, and ``flood_struck`` those of them that the log took.
        """
        self._harness = harness
        self._say = say
        self._slopes = itertools.count(1)
        self._orders: queue.Queue[Command | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self.failures: list[str] = []
        self._stopping = threading.Event()

    def start(self) -> None:
        """Wait for orders."""
        self._spawn(self._obey)

    def order(self, command: Command) -> None:
        """Give this command once those before are given."""
        self._orders.put(command)

    def flood(self, flood: Flood) -> None:
        """Give these commands, one after the other, beside the others."""
        self._spawn(lambda: self._flood(flood))

    def close(self) -> None:
        """Take no more orders; what was ordered is still done."""
        self._orders.put(None)

    @property
    def is_done(self) -> bool:
        """Whether everything was given that was ordered before ``close``."""
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Give nothing more, and let nothing be tried again; a failure counts no more either."""
        self._stopping.set()
        self._orders.put(None)

    def new_bundle(self) -> str:
        """A bundle that was never released; returns its digest."""
        slope = 1.0 + next(self._slopes) / 128
        harness = self._harness
        return store_bundle(harness.store, harness.model, slope, table_bytes=TABLE_BYTES)

    def _spawn(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - a thread's failure is the run's
                if self._stopping.is_set():
                    return
                self.failures.append(f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _obey(self) -> None:
        while (order := self._orders.get()) is not None and not self._stopping.is_set():
            self._give(order.ask, Random(order.draw), is_scheduled=True)

    def _flood(self, flood: Flood) -> None:
        random, began = Random(flood.draw), time.monotonic()
        told, events = began, 0
        for given in range(1, flood.commands + 1):
            if self._stopping.is_set():
                return
            made = self._give(Ask.ANY, random, is_scheduled=False)
            events += made
            self.counts["flooded"] += 1
            self.counts["flood_struck"] += bool(made)
            if time.monotonic() - told >= TOLD_SECONDS:
                told = time.monotonic()
                self._say(f"the flood: {given} of {flood.commands} commands")
        seconds = time.monotonic() - began
        self._say(f"the flood is over: {flood.commands} commands, {events} events, {seconds:.0f} s")

    def _give(self, ask: Ask, random: Random, *, is_scheduled: bool) -> int:
        """Choose and append; returns how many events it made.

        What a rule refuses is counted and is no failure.

        In a flood the fleet is not looked at, which takes longer than the append.
        """
        commandid, deadline = uuid.uuid4().hex, time.monotonic() + PATIENCE_SECONDS
        harness = self._harness
        deployment, given = self._persist(
            lambda: self._choose(ask, random, is_scheduled=is_scheduled), deadline
        )
        kind = type(given).__name__
        try:
            events = self._persist(
                lambda: append(
                    harness.settings,
                    harness.model,
                    given,
                    commandid=commandid,
                    actor="chaos",
                    now=lambda: datetime.now(UTC),
                ),
                deadline,
            )
        except (RefusedByRule, NotFound) as refused:
            self.counts["refused"] += 1
            made, outcome = 0, refused.message
        else:
            made = len(events)
            self.counts["events"] += made
            outcome = ", ".join(type(each.data).__name__ for each in events)
        self.counts[kind] += 1
        if is_scheduled:
            self._say(f"{kind.lower()} at revision {deployment.revision}: {outcome}")
        return made

    def _choose(self, ask: Ask, random: Random, *, is_scheduled: bool) -> tuple[Deployment, Given]:
        harness = self._harness
        deployment = read_log(harness.settings, harness.model).deployment
        fleet = live_instances(harness.fleet()) if is_scheduled else ()
        return deployment, choose(deployment, ask, random, fleet, self.new_bundle)

    def _persist(self, work: Callable[[], Outcome], deadline: float) -> Outcome:
        """What ``work`` gives, tried again while the broker is away. Raises what a rule refuses."""
        while True:
            try:
                return work()
            except (RefusedByRule, NotFound):
                raise
            except ModelwireError:
                if time.monotonic() > deadline or self._stopping.is_set():
                    raise
                self.counts["repeated"] += 1
                time.sleep(0.2)
