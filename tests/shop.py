"""A model with its topics and its own corner of the bucket, and its command line as a script calls it."""

import re
import subprocess
import sys
from dataclasses import dataclass

from adapters.control_log import read_log
from adapters.object_store import ObjectStore, open_store
from adapters.settings import Settings
from adapters.topics import create_topics
from schemas.events import Recorded
from tests.conftest import RunningStack
from tests.fleet import LIMIT_SECONDS


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Shop:
    """One model's command line. Nobody answers its requests."""

    stack: RunningStack
    model: str
    settings: Settings
    store: ObjectStore

    @classmethod
    def open(cls, stack: RunningStack, model: str) -> "Shop":
        """Create the model's topics."""
        settings = stack.settings(model)
        create_topics(settings, model)
        return cls(stack, model, settings, open_store(settings.store_url, settings.s3_settings))

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """``modelwire arguments…``; ``variables`` are settings (``S3__SECRET_KEY``)."""
        return subprocess.Popen(
            [sys.executable, "-m", "modelwire", *arguments],
            env=self.stack.environment(self.model, **variables) | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> Ran:
        """The same, to its end."""
        return ended(self.start(*arguments, **variables))

    def ok(self, *arguments: str, says: str = "", **variables: str) -> str:
        """What a command that must succeed prints; ``says`` is what it must write to stderr."""
        ran = self.run(*arguments, **variables)
        assert (ran.code, ran.err) == (0, says)
        return ran.out

    def fails(self, code: int, *arguments: str, **variables: str) -> str:
        """What a command that must fail says: nothing on stdout, two lines on stderr."""
        ran = self.run(*arguments, **variables)
        assert (ran.code, ran.out) == (code, "")
        assert re.fullmatch(r"error: .+\n  next: .+\n", ran.err)
        return ran.err

    @property
    def events(self) -> list[Recorded]:
        """What the model's log holds."""
        return read_log(self.settings, self.model).events

    @property
    def revision(self) -> int:
        """How many events that is."""
        return len(self.events)

    @property
    def champion(self) -> int | None:
        """Who answers by the log."""
        return read_log(self.settings, self.model).deployment.champion


def ended(process: subprocess.Popen[str]) -> Ran:
    """What a command has come to; it is killed where it does not end."""
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
    assert "Traceback" not in err, err
    return Ran(process.returncode, out, err)
