"""``modelwire rejections``: list what was rejected and why, and send it again."""

import re
from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from adapters.command_line import options
from adapters.kafka import require_topics, topic_names
from adapters.layout import NOTHING, new_table, show, utc
from adapters.model_name import parse_model
from adapters.settings import Settings
from deployment.moments import parse_moment
from modelwire.rejected import Choice, Place, Rejected, read_rejected
from modelwire.resend import Chosen, Plan, Resender, Skip, Topics, make_plan
from publisher.cli.options import asking, settings_of
from schemas.errors import Conflict, ModelwireError, NotFound, RefusedByRule, UsageProblem
from schemas.rejection import Reason

MOST_SHOWN = 100
DETAIL_WIDTH = 80
MOST_NAMED = 10
"""Sources that a message names."""

_SKIPPED = {
    Skip.NOT_KEPT: "their bytes were not kept",
    Skip.REPLAYED: "they were sent again already",
    Skip.FORGOTTEN: "the request topic no longer tells whether they were sent again (--again sends "
    "them all the same)",
}


@click.group()
def rejections() -> None:
    """List what was rejected, and send it again."""


choosing = options(
    click.option(
        "--reason",
        "reasons",
        multiple=True,
        type=click.Choice([reason.value for reason in Reason]),
        metavar="REASON",
        help="Only these reasons; may be given several times.",
    ),
    click.option("--since", metavar="TIME", help="Only since then: 10m, 2h, 2026-11-21T10:00Z."),
    click.option(
        "--partition", type=click.IntRange(0), help="Only requests of this request partition."
    ),
)


@rejections.command("list")
@click.argument("model")
@choosing
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=MOST_SHOWN,
    show_default=True,
    help="The newest so many.",
)
@asking
def list_(
    model: str,
    reasons: tuple[str, ...],
    since: str | None,
    partition: int | None,
    limit: int,
    bootstrap_servers: str | None,
    output: str,
) -> None:
    """List MODEL's rejected requests, the newest last.

    The source is where the request lay: its partition and offset. Exit code 4: no such model or
    partition, or nothing matches --reason, --since and --partition.
    """
    settings = settings_of(bootstrap_servers)
    choice = Choice(frozenset(reasons), frozenset(), partition, _since(since))
    topics = _topics(settings, parse_model(model))
    _check_partitions(topics, choice)
    newest: deque[Rejected] = deque(maxlen=limit)
    matched = 0
    for each in read_rejected(settings, topics.names.rejections, topics.rejections, choice):
        newest.append(each)
        matched += 1
    if not matched and choice != Choice():
        raise _nothing(model, _as_asked(reasons, since, partition))
    shown = [_object(each) for each in newest]
    value = {"model": model, "matched": matched, "rejections": shown}
    view = _table(newest, matched) if matched else Text(f"{model} has no rejections")
    show(output, view, value)


@rejections.command()
@click.argument("model")
@choosing
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="PARTITION/OFFSET",
    help="Only the request that lay there; may be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--yes", is_flag=True, help="Send. Without this, only say what would be sent.")
@click.option("--again", is_flag=True, help="Also what was sent again before, or may have been.")
@asking
def replay(
    model: str,
    reasons: tuple[str, ...],
    since: str | None,
    partition: int | None,
    sources: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    again: bool,
    bootstrap_servers: str | None,
    output: str,
) -> None:
    """Send MODEL's rejected requests again: the original bytes under the original key.

    Each is a new request with an answer of its own. What was sent again before is skipped, so a replay
    that was interrupted is completed by the same command. Without --yes it sends nothing and exits
    with 3; with --dry-run, with 0. Exit code 4: nothing matches, or not all that --source names.
    """
    settings = settings_of(bootstrap_servers)
    places = frozenset(map(_place, sources))
    choice = Choice(frozenset(reasons), places, partition, _since(since))
    topics = _topics(settings, parse_model(model))
    _check_partitions(topics, choice)
    is_sending = yes and not dry_run
    # Opened first: what an older replay left open must be aborted before anybody looks.
    resender = Resender(settings, topics) if is_sending else None
    plan = make_plan(settings, topics, choice, again=again)
    if not plan.matched or plan.missing:
        raise _nothing(model, _as_asked(reasons, since, partition, plan.missing))
    if resender is None:
        value = _report(model, plan, 0) | {"requests": list(map(_chosen, plan.send.values()))}
        view = _plan_view(_report_view(value, topics.names.requests), plan)
    else:
        value = _report(model, plan, _send(resender, plan))
        view = _report_view(value, topics.names.requests)
    show(output, view, value)
    if not yes and not dry_run:
        raise RefusedByRule("nothing was sent", hint="to send them, add --yes")
    if not plan.send and not plan.skipped[Skip.REPLAYED]:
        raise RefusedByRule("none of them can be sent again")


def _send(resender: Resender, plan: Plan) -> int:
    sent = 0
    try:
        for count in resender.send(plan):
            sent += count
    except ModelwireError as error:
        again = "run the same command again: it sends only what was not sent"
        if isinstance(error, Conflict):  # now it would end the one that ended it
            error.hint = f"once the other replay has ended, {again}"
        else:
            error.hint = again + (f" ({error.hint})" if error.hint else "")
        error.details = (f"{sent} of {len(plan.send)} were sent for certain", *error.details)
        raise
    return sent


def _report(model: str, plan: Plan, sent: int) -> dict[str, Any]:
    return {
        "model": model,
        "matched": plan.matched,
        "to_send": len(plan.send),
        "sent": sent,
        "skipped": {skip.value: plan.skipped[skip] for skip in Skip},
    }


def _chosen(chosen: Chosen) -> dict[str, Any]:
    """A request that is to be sent again, for programs; the names are those of the list."""
    partition, offset = chosen.source
    return {
        "time": datetime.fromtimestamp(chosen.time_ms / 1_000, UTC),
        "reason": chosen.reason,
        "source": {"partition": partition, "offset": offset},
        "key": _text(chosen.key),
        "size": chosen.size,
    }


def _plan_view(counts: Text, plan: Plan) -> RenderableType:
    if not plan.send:
        return counts
    table = new_table("time", "reason", "source", "key", "size")
    newest = list(plan.send.values())[-MOST_SHOWN:]
    for each in newest:
        partition, offset = each.source
        table.add_row(
            utc(datetime.fromtimestamp(each.time_ms / 1_000, UTC)),
            each.reason,
            f"{partition}/{offset}",
            _on_screen(_text(each.key) or NOTHING),
            f"{each.size:,}",
        )
    if len(newest) == len(plan.send):
        return Group(table, Text(), counts)
    left_out = f"the newest {len(newest):,} of {len(plan.send):,} (all: -o json)"
    return Group(table, Text(left_out), Text(), counts)


def _report_view(report: dict[str, Any], topic: str) -> Text:
    model, matched, sent = report["model"], report["matched"], report["sent"]
    if sent:
        lines = [f"{model}: {sent:,} of {matched:,} rejected requests sent again to {topic}"]
    else:
        lines = [f"{model}: {report['to_send']:,} of {matched:,} rejected requests to send again"]
    for skip, why in _SKIPPED.items():
        if count := report["skipped"][skip.value]:
            lines.append(f"  skipped {count:,}: {why}")
    return Text("\n".join(lines))


def _topics(settings: Settings, model: str) -> Topics:
    names = topic_names(settings, model)
    counts = require_topics(settings, (names.requests, names.rejections), model=model)
    return Topics(names, counts[names.requests], counts[names.rejections])


def _check_partitions(topics: Topics, choice: Choice) -> None:
    """Raises NotFound where a partition is named that the request topic does not have."""
    named = {partition for partition, _ in choice.sources}
    if choice.partition is not None:
        named.add(choice.partition)
    for partition in sorted(named):
        if partition >= topics.requests:
            raise NotFound(
                f"{topics.names.requests} has no partition {partition}",
                hint=f"its partitions are 0 to {topics.requests - 1}",
            )


def _as_asked(
    reasons: Collection[str],
    since: str | None,
    partition: int | None,
    missing: Collection[Place] = (),
) -> str:
    """What was asked for, as it was typed."""
    places = sorted(missing)
    return " ".join(
        [f"--source {number}/{offset}" for number, offset in places[:MOST_NAMED]]
        + ([f"(and {len(places) - MOST_NAMED:,} more)"] if len(places) > MOST_NAMED else [])
        + [f"--reason {reason}" for reason in reasons]
        + ([] if since is None else [f"--since {since}"])
        + ([] if partition is None else [f"--partition {partition}"])
    )


def _nothing(model: str, asked: str) -> NotFound:
    if not asked:
        return NotFound(f"{model} has no rejections", hint="nothing needs to be sent again")
    return NotFound(
        f"{model} has no rejections that match {asked}",
        hint=f"see all that there are: modelwire rejections list {model}",
    )


def _place(text: str) -> Place:
    found = re.fullmatch(r"(?:[^/]+/)?(\d{1,9})/(\d{1,18})", text)
    if found is None:
        raise UsageProblem(
            f"--source {text} is no place", hint="write PARTITION/OFFSET, such as 3/1042"
        )
    return int(found[1]), int(found[2])


def _since(text: str | None) -> int | None:
    if text is None:
        return None
    hint = "write how long ago (10m, 2h) or a time (2026-11-21T10:00Z)"
    try:
        moment = parse_moment(text, datetime.now(UTC))
    except UsageProblem as problem:
        raise UsageProblem(problem.message, hint=hint) from None
    if not isinstance(moment, datetime):
        raise UsageProblem(f"--since {text} is no time", hint=hint)
    return max(int(moment.timestamp() * 1_000), 0)


def _object(rejected: Rejected) -> dict[str, Any]:
    """One rejection for programs; ``key`` is text, with escapes where it is none."""
    said = rejected.rejection
    return {
        "time": datetime.fromtimestamp(rejected.time_ms / 1_000, UTC),
        "reason": said.reason,
        "detail": said.detail,
        "source": said.source,
        "version": said.version or None,
        "variant": said.variant or None,
        "digest": said.digest or None,
        "revision": said.revision,
        "instance": said.instance,
        "runtime": said.runtime,
        "key": _text(rejected.key),
        "size": rejected.size,
        "kept": rejected.value is not None,
    }


def _table(rejected: deque[Rejected], matched: int) -> RenderableType:
    table = new_table(
        *("time", "reason", "source", "version", "revision", "key", "size", "kept", "what")
    )
    for each in rejected:
        said = each.rejection
        table.add_row(
            utc(datetime.fromtimestamp(each.time_ms / 1_000, UTC)),
            said.reason,
            f"{said.source.partition}/{said.source.offset}",
            str(said.version or NOTHING),
            str(said.revision),
            _on_screen(_text(each.key) or NOTHING),
            f"{each.size:,}",
            "no" if each.value is None else "yes",
            _on_screen(said.detail[:DETAIL_WIDTH]),
        )
    if matched == len(rejected):
        return table
    return Group(table, Text(f"the newest {len(rejected):,} of {matched:,} (--limit)"))


def _text(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="backslashreplace")


def _on_screen(text: str) -> Text:
    """What callers wrote must not steer the terminal: what is not printable is escaped."""
    return Text(
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    )
