"""Releases: a bundle becomes a version, and a version goes out of service for ever.

A bundle is verified, every byte of it, before its release is appended: what the log names can be read.
A release that starts its rollout is one transaction where it makes the model's first champion. Beside a
champion it comes alone, so that the fleet judges it before it is started; it stands whatever becomes of
that start.
"""

import time
from dataclasses import dataclass, replace

from adapters.bundle_names import find_bundle
from adapters.bundles import read_manifest, verify_bundle
from adapters.control_log import read_log
from adapters.naming import VersionName, release_in
from adapters.object_store import ObjectStore, open_store
from adapters.settings import Settings
from deployment.commands import Release, Retire, Revoke
from deployment.state import Deployment
from deployment.state import Release as Released
from publisher.commands import Appended, fresh_salt, give
from publisher.fleets import live_fleet
from publisher.launches import Launch, Launched, finish, join, start
from schemas.errors import ModelwireError, UsageProblem
from schemas.events import ModelReleased
from schemas.manifest import Manifest


@dataclass(frozen=True)
class Version:
    """A released version: what the log says of it, and what its bundle says."""

    name: VersionName
    release: Released
    deployment: Deployment
    manifest: Manifest


def store_of(settings: Settings) -> ObjectStore:
    """The store that the consumers read from."""
    return open_store(settings.store_url, settings.s3_settings)


def publish(
    settings: Settings, bundle: str, model: str | None, launch: Launch | None, reason: str
) -> Launched:
    """Verifies the bundle and releases it; with ``launch``, starts its rollout as well.

    The manifest says whose version it becomes; ``model``, where it is given, must be the same. Raises
    what went wrong before the release.
    """
    store = store_of(settings)
    digest = find_bundle(store, bundle)
    manifest = verify_bundle(store, digest)
    if model is not None and model != manifest.model:
        raise UsageProblem(
            f"the bundle {digest} is of the model {manifest.model}, not of {model}",
            hint="a bundle's model is fixed when it is trained",
        )
    if launch is None:
        alone = Release(digest, None, fresh_salt(), reason)
        return Launched(give(settings, manifest.model, alone))
    if read_log(settings, manifest.model).deployment.champion is None:
        return _publish_first(settings, manifest.model, digest, launch, reason)
    released = give(settings, manifest.model, Release(digest, None, fresh_salt(), reason))
    [version] = [e.data.version for e in released.events if isinstance(e.data, ModelReleased)]
    try:
        launched = start(settings, VersionName(manifest.model, version), launch, reason)
    except ModelwireError as problem:
        return Launched(released, problem)
    return replace(launched, appended=join([released, launched.appended]))


def _publish_first(
    settings: Settings, model: str, digest: str, launch: Launch, reason: str
) -> Launched:
    """Releases and starts in one transaction."""
    deadline = time.monotonic() + launch.wait_seconds
    command = Release(
        digest,
        launch.strategy,
        fresh_salt(),
        reason,
        launch.plan,
        launch.min_ready,
        launch.share,
        live_fleet(settings, model),
    )
    return finish(settings, give(settings, model, command), launch, deadline)


def revoke(settings: Settings, named: VersionName, reason: str) -> Appended:
    """Takes a version out of service for ever."""
    return give(settings, named.model, Revoke(named.version, reason))


def retire(settings: Settings, named: VersionName, reason: str) -> Appended:
    """Lets consumers drop a version that serves no more."""
    return give(settings, named.model, Retire(named.version, reason))


def show(settings: Settings, named: VersionName) -> Version:
    """A version with its bundle's manifest. Raises NotFound for a version that was never released."""
    deployment = read_log(settings, named.model).deployment
    release = release_in(deployment, named)
    return Version(named, release, deployment, read_manifest(store_of(settings), release.digest))
