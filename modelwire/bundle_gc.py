"""``modelwire bundle gc``: removes the bundles that nothing may ask for any more.

It spans the parts: which models there are (publisher), which answers are kept (audit), what is stored.
The rules are in ``audit.retention``.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from adapters.output import TABLE, as_text, output_option

if TYPE_CHECKING:
    from adapters.object_store import ObjectStore
    from adapters.settings import Settings
    from audit.retention import Stored, Use


@click.command()
@click.option(
    "--keep-days",
    type=click.IntRange(1, 100_000),
    help="How long bundles stay after their last answer.  [default: the setting audit.retention_days]",
)
@click.option(
    "--grace-days",
    type=click.IntRange(1, 100_000),
    default=30,
    show_default=True,
    help="How long a bundle stays that was never released.",
)
@click.option("--store", metavar="URI", help="Store to tidy up (file:///folder, s3://bucket).")
@click.option("--yes", is_flag=True, help="Remove; without it only what would be removed is said.")
@output_option
def gc(keep_days: int | None, grace_days: int, store: str | None, yes: bool, output: str) -> None:
    """Remove bundles that no version in use and no kept answer refers to.

    Every model of the cluster is asked, and every one that has answer files. Other clusters that read
    the same store are not: give each cluster a store of its own, or leave this command alone.
    """
    from adapters.bundle_names import SHOWN_DIGITS
    from adapters.bundles import list_bundles, remove_bundle
    from adapters.object_store import open_removable_store
    from adapters.settings import load_settings
    from audit.retention import judge

    settings = load_settings(store_url=store)
    opened = open_removable_store(settings.store_url, settings.s3_settings)
    now = datetime.now(UTC)
    retention = timedelta(days=keep_days or settings.audit.retention_days)
    # The store first: what is stored after this is not judged at all.
    stored = list(_stored(opened, list_bundles(opened)))
    # Answers lie where the settings say, whatever store is tidied up.
    kept = {each.audit_url: each for each in (settings, load_settings())}
    uses, answers = _asked_of_models(list(kept.values()), now - retention)
    verdicts = judge(
        sorted(stored, key=lambda each: (each.model, each.created_at)),
        uses,
        answers,
        now=now,
        retention=retention,
        grace=timedelta(days=grace_days),
    )
    if yes:
        for each in verdicts:
            if not each.stays:
                remove_bundle(opened, each.stored.digest)
    report = {
        "store": opened.url,
        "removed": yes,
        "bundles": [
            {
                "digest": each.stored.digest,
                "model": each.stored.model,
                "created_at": each.stored.created_at,
                "stays": each.stays,
                "why": each.why,
            }
            for each in verdicts
        ],
    }
    if output != TABLE:
        click.echo(as_text(output, report))
        return
    for each in verdicts:
        fate = "keep  " if each.stays else "remove"
        digest = each.stored.digest.removeprefix("sha256:")[:SHOWN_DIGITS]
        click.echo(f"{fate}  {digest}  {each.stored.model}  {each.why}")
    gone = sum(not each.stays for each in verdicts)
    done = f"removed {gone}" if yes else f"{gone} would be removed; --yes removes them"
    click.echo(f"{len(verdicts)} bundles in {opened.url}: {done}")


def _stored(store: "ObjectStore", digests: Iterable[str]) -> "Iterator[Stored]":
    from adapters.bundles import read_manifest
    from audit.retention import Stored

    for digest in digests:
        manifest = read_manifest(store, digest)
        parent = "" if manifest.lineage is None else manifest.lineage.parent
        yield Stored(digest, manifest.model, manifest.created_at, parent)


def _asked_of_models(
    kept: "Sequence[Settings]", since: datetime
) -> "tuple[dict[str, list[Use]], Counter[str]]":
    """What the control logs say of each digest, and how many answers since then refer to it.

    ``kept`` has the settings of each place of answers. A model whose topics are gone is known by the
    files of its answers, which can be asked for all the same. A model whose log or answers cannot be read
    ends the command: its bundles would look unused.
    """
    from adapters.answer_files import kept_models
    from adapters.answer_query import AnswerQuery
    from adapters.control_log import read_log
    from adapters.object_store import open_store
    from audit.retention import uses_of
    from publisher.models import list_models

    uses: dict[str, list[Use]] = {}
    answers: Counter[str] = Counter()
    models = list_models(kept[0])
    for model in models:
        for digest, found in uses_of(model, read_log(kept[0], model).events).items():
            uses.setdefault(digest, []).extend(found)
    for settings in kept:
        stored = kept_models(open_store(settings.audit_url, settings.s3_settings))
        for model in sorted(stored.union(models)):
            with AnswerQuery(settings, model, since=since) as asked:
                for kind in ("forecasts", "shadow", "rejections"):
                    counted = asked.fetch(
                        f"SELECT digest, count(*) AS answers FROM {kind} "
                        "WHERE digest <> '' GROUP BY digest"
                    )
                    for row in counted.to_pylist():
                        answers[row["digest"]] += row["answers"]
    return uses, answers
