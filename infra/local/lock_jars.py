"""Write jgo.lock.toml beside each jgo.toml of the local stack: every jar with its sha256.

Run it by hand after a change to a spec, with the `local` extra installed and a network:

    python infra/local/lock_jars.py

It resolves in pure Python (no Maven, no JDK) against Maven Central and records no address, so
that the stack can be filled from any repository that has the same bytes.
"""

import tempfile
from pathlib import Path

from jgo.env import EnvironmentBuilder, EnvironmentSpec, LockFile, compute_spec_hash
from jgo.maven import MavenContext, PythonResolver

SERVERS = Path(__file__).resolve().parents[2] / "modelwire" / "localstack" / "servers"


def lock(spec_path: Path, scratch: Path) -> int:
    """Resolve one spec and write its lock beside it; returns how many jars it names."""
    context = MavenContext(resolver=PythonResolver(), repo_cache=scratch / "m2", timeout=30)
    builder = EnvironmentBuilder(context, cache_dir=scratch / "envs")
    spec = EnvironmentSpec.load(spec_path)
    roots, transitive = context.resolver.resolve(builder.spec_to_dependencies(spec))
    needed = [*roots, *(dep for dep in transitive if dep.scope in ("compile", "runtime"))]
    LockFile.from_resolved_dependencies(
        needed, environment_name=spec.name, spec_hash=compute_spec_hash(spec_path)
    ).save(spec_path.with_name("jgo.lock.toml"))
    return len(needed)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for spec_path in sorted(SERVERS.glob("*/jgo.toml")):
            print(f"{spec_path.parent.name}: {lock(spec_path, Path(scratch))} jars")  # noqa: T201
