"""The live fleet of a model: as it is now, or as soon as it is what a command waits for."""

import time
from collections.abc import Callable

from adapters.fleet_topic import live_instances, read_fleet
from adapters.settings import Settings
from deployment.readiness import Fleet

LOOK_SECONDS = 0.3
"""Between two looks at a fleet that is not there yet."""


def live_fleet(settings: Settings, model: str) -> Fleet:
    """The model's live instances, as of now."""
    return live_instances(read_fleet(settings, model))


def wait_for_fleet(
    settings: Settings, model: str, is_there: Callable[[Fleet], bool], deadline: float
) -> Fleet:
    """The live instances, as soon as ``is_there`` says yes to them; at the latest when
    ``time.monotonic()`` has passed ``deadline``. There is always one look."""
    while True:
        fleet = live_fleet(settings, model)
        if is_there(fleet) or time.monotonic() >= deadline:
            return fleet
        time.sleep(LOOK_SECONDS)
