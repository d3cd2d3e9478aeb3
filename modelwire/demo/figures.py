"""The demo's figures: what it measured itself, and its result beside the checker's verdict."""

from dataclasses import dataclass
from typing import Any, Self

from modelwire.checker import Report, Share
from modelwire.demo.answers import Split


@dataclass(frozen=True)
class Swap:
    """A change of the champion under load: by which way (promotion, undo, blue-green), the command, its
    revision, seconds until all served it."""

    way: str
    command: str
    revision: int
    seconds: float


@dataclass(frozen=True)
class Step:
    """One weight of the canary (basis points) as it was seen.

    ``requests`` and ``keys`` count what was answered at the shift's revision, ``request_share`` and
    ``key_share`` (0 … 1) are the candidate's part. ``seconds`` passed until all served it.
    """

    weight: int
    revision: int
    requests: int
    request_share: float | None
    keys: int
    key_share: float | None
    seconds: float

    @classmethod
    def of(cls, weight: int, revision: int, split: Split, seconds: float) -> Self:
        """The step at ``revision``, from what was answered there."""
        return cls(
            weight,
            revision,
            split.requests.total(),
            split.request_share,
            split.key_count,
            split.key_share,
            seconds,
        )


@dataclass(frozen=True)
class Shadowed:
    """What a shadow did: requests that it scored, that were left out since it was behind, and answers
    that the broker did not take; and both versions' WAPE on the requests that both have answered."""

    version: int
    scored: int
    shed: int
    failed: int
    compared: int
    wape: float | None
    champion_wape: float | None


@dataclass(frozen=True)
class Played:
    """What the demo itself has seen. ``wape`` maps a version to its WAPE on the held-out rows."""

    swaps: tuple[Swap, ...]
    wape: dict[int, float | None]
    shadow: Shadowed
    canary: tuple[Step, ...]


@dataclass(frozen=True)
class Audited:
    """What the audit gave: the answers that were kept, the one that was explained, and how many of the
    ``derived`` came out ``identical``."""

    kept: int
    request_id: str
    version: int
    derived: int
    identical: int

    @property
    def is_proven(self) -> bool:
        """Whether every answer came out again to the bit."""
        return 0 < self.derived == self.identical


def summary(played: Played, report: Report, audited: Audited) -> dict[str, Any]:
    """The demo's result. ``versions`` maps a version to its forecasts; ``canary`` and ``shadow`` are what
    the demo saw, ``shares`` what the checker did."""
    return {
        "requests": report.requests,
        "forecasts": report.forecasts,
        "rejections": report.rejections,
        "lost": report.lost,
        "doubled": report.doubled,
        "revision_regressions": report.revision_regressions,
        "swaps": len(played.swaps),
        "swap_seconds_max": round(max(swap.seconds for swap in played.swaps), 3),
        "versions": {str(version): count for version, count in report.versions.items()},
        "wape_by_version": {str(version): _rounded(wape) for version, wape in played.wape.items()},
        "swap_seconds": {swap.way: round(swap.seconds, 3) for swap in played.swaps},
        "wrong_variant": report.wrong_variant,
        "shadow": {
            "version": played.shadow.version,
            "scored": played.shadow.scored,
            "shed": played.shadow.shed,
            "failed": played.shadow.failed,
            "compared": played.shadow.compared,
            "wape": _rounded(played.shadow.wape),
            "champion_wape": _rounded(played.shadow.champion_wape),
        },
        "canary": [
            {
                "weight": step.weight,
                "revision": step.revision,
                "requests": step.requests,
                "request_share": _rounded(step.request_share),
                "keys": step.keys,
                "key_share": _rounded(step.key_share),
                "seconds": round(step.seconds, 3),
            }
            for step in played.canary
        ],
        "shares": [
            {
                "rollout": share.rollout,
                "version": share.version,
                "weight": share.weight,
                "requests": share.answers.total,
                "request_share": round(share.answers.share, 4),
                "keys": share.keys.total,
                "key_share": round(share.keys.share, 4),
            }
            for share in observed(report)
        ],
        "audit": {
            "kept": audited.kept,
            "explained": audited.request_id,
            "derived": audited.derived,
            "identical": audited.identical,
        },
    }


def observed(report: Report) -> list[Share]:
    """The checker's shares, without those of moments in which nothing was answered."""
    return [share for share in report.shares if share.answers.total]


def lines(played: Played, report: Report, audited: Audited) -> list[tuple[str, str]]:
    """The result for people: a name and a figure each."""
    names = ("requests", "forecasts", "rejections", "lost", "doubled", "revision_regressions")
    versions = sorted({*report.versions, *played.wape})
    return [
        *((name, f"{getattr(report, name):,}") for name in (*names, "wrong_variant")),
        *(
            (f"by version {each}", f"{report.versions.get(each, 0):,}, WAPE {in_words(wape)}")
            for each, wape in ((each, played.wape.get(each)) for each in versions)
        ),
        ("shadow", shadow_words(played.shadow)),
        *(
            (
                f"share at weight {share.weight / 100:g}%",
                f"{share.answers.share:.1%} of {share.answers.total:,} requests, "
                f"{share.keys.share:.1%} of {share.keys.total:,} keys",
            )
            for share in observed(report)
        ),
        *((f"seconds of the {swap.way}", f"{swap.seconds:.3f}") for swap in played.swaps),
        ("derived again to the bit", f"{audited.identical:,} of {audited.derived:,} answers"),
    ]


def shadow_words(shadow: Shadowed) -> str:
    """``version 2 WAPE 0.845, champion 0.899 on the same 4,000 requests``, and what it missed."""
    said = (
        f"version {shadow.version} WAPE {in_words(shadow.wape)}, champion "
        f"{in_words(shadow.champion_wape)} on the same {shadow.compared:,} requests"
    )
    if shadow.shed or shadow.failed:
        said += f"; {shadow.shed:,} left out, {shadow.failed:,} failed"
    return said


def step_words(step: Step, version: int) -> str:
    """``weight 10%: version 2 answered 9.8% of 2,012 requests, 10.3% of 1,041 keys``."""
    return f"weight {step.weight / 100:g}%: version {version} answered " + share_words(
        step.requests, step.request_share, step.keys, step.key_share
    )


def share_words(
    requests: int, request_share: float | None, keys: int, key_share: float | None
) -> str:
    """``9.8% of 2,012 requests, 10.3% of 1,041 keys``."""
    return (
        f"{request_share or 0:.1%} of {requests:,} requests, {key_share or 0:.1%} of {keys:,} keys"
    )


def in_words(wape: float | None) -> str:
    """A WAPE with three digits, or that there is none."""
    return "unknown" if wape is None else f"{wape:.3f}"


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)
