"""Which variant was to answer a request while champion and candidate shared the traffic, and what
shares came of it.

1. A request's bucket is BLAKE2b, with a digest of 8 bytes, over the rollout's salt in UTF-8, one zero
   byte and the record's key; read as a big-endian number, modulo 10,000. The candidate answers the
   buckets below its weight. A request without a key has its request id, in UTF-8, in the key's place.
2. An answer at a revision of the log so far is judged at once. One beyond it is kept until more of
   the log is known: at most `KEPT` of them.
3. An answer goes unchecked where neither key nor id is known (a rejection whose bytes were not kept
   and that has no key), where too many were kept, or where the log never reached its revision.
4. Distinct keys are told apart by their digests, which 64 bits make sure enough. All shares together
   remember at most `KEYS_HELD`. Beyond that the largest is thinned: it goes on with every second,
   fourth … key, chosen by the digest's bits above the bucket. These say nothing of the bucket, so the
   candidate's part among the keys that are left is as good an observation as any of that size.
"""

from dataclasses import dataclass
from hashlib import blake2b

from modelwire.checker.log import Log, Rollout
from modelwire.checker.report import Record, Share, Tally

BUCKETS = 10_000

KEPT = 100_000
"""Answers beyond the known log that are kept, at about 300 bytes each."""

KEYS_HELD = 200_000
"""Digests of keys that are remembered, at about 100 bytes each."""

CHAMPION, CANDIDATE = "champion", "candidate"


def bucket(salt: str, sticky: bytes) -> int:
    """The bucket, 0 … 9,999, of what a request is routed by."""
    return _digest(_prefix(salt), sticky) % BUCKETS


class _Split:
    """A rollout at one weight, and what was seen of it."""

    __slots__ = ("answers", "keys", "one_in", "prefix", "rollout")

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.prefix = _prefix(rollout.salt)
        self.answers = {CHAMPION: 0, CANDIDATE: 0}
        self.keys: dict[str, set[int]] = {CHAMPION: set(), CANDIDATE: set()}
        self.one_in = 1

    @property
    def held(self) -> int:
        return sum(map(len, self.keys.values()))

    def is_sampled(self, digest: int) -> bool:
        return digest // BUCKETS % self.one_in == 0

    def thin(self) -> None:
        self.one_in *= 2
        for variant, digests in self.keys.items():
            self.keys[variant] = {digest for digest in digests if self.is_sampled(digest)}

    def share(self) -> Share:
        rollout = self.rollout
        return Share(
            rollout=rollout.revision,
            version=rollout.candidate,
            weight=rollout.weight,
            answers=Tally(**self.answers),
            keys=Tally(**{variant: len(digests) for variant, digests in self.keys.items()}),
            one_in=self.one_in,
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer beyond the log that was known when it was read."""

    revision: int
    variant: str
    sticky: bytes | None
    place: str


class Routes:
    """Judges the variants of answers, as they come or when the log has caught up with them."""

    def __init__(self) -> None:
        self.unchecked = 0
        self._at: list[_Split | None] = []
        self._splits: dict[tuple[int, int], _Split] = {}
        self._kept: list[_Kept] = []
        self._held = 0

    @property
    def is_behind(self) -> bool:
        """Whether answers wait for more of the log."""
        return bool(self._kept)

    def learn(self, log: Log) -> list[str]:
        """Go on with a longer log. Gives what is wrong with the answers that waited for it."""
        for state in log.states[len(self._at) :]:
            rollout = state.split
            if rollout is None:
                self._at.append(None)
                continue
            name = (rollout.revision, rollout.weight)
            if name not in self._splits:
                self._splits[name] = _Split(rollout)
            self._at.append(self._splits[name])
        kept, self._kept = self._kept, []
        problems = []
        for answer in kept:
            if answer.revision >= len(self._at):
                self._kept.append(answer)
                continue
            problem = self._judge(answer.revision, answer.variant, answer.sticky)
            if problem:
                problems.append(f"the answer at {answer.place} {problem}")
        return problems

    def take(self, record: Record, revision: int, variant: str, sticky: bytes | None) -> str:
        """Empty, or what is wrong with the variant of a routed answer.

        ``sticky`` is what the request was routed by, None where that is not known.
        """
        if revision < len(self._at):
            problem = self._judge(revision, variant, sticky)
            return problem and f"the answer at {record} {problem}"
        if len(self._kept) < KEPT:
            self._kept.append(_Kept(revision, variant, sticky, str(record)))
        else:
            self.unchecked += 1
        return ""

    def finish(self) -> tuple[Share, ...]:
        """The shares, by rollout and weight. What still waits for the log goes unchecked."""
        self.unchecked += len(self._kept)
        self._kept = []
        return tuple(split.share() for _, split in sorted(self._splits.items()))

    def _judge(self, revision: int, variant: str, sticky: bytes | None) -> str:
        split = self._at[revision] if revision > 0 else None
        if split is None:
            return ""
        if sticky is None:
            self.unchecked += 1
            return ""
        digest = _digest(split.prefix, sticky)
        if variant in split.answers:
            split.answers[variant] += 1
            if split.is_sampled(digest):
                self._remember(split.keys[variant], digest)
        weight = split.rollout.weight
        routed = CANDIDATE if digest % BUCKETS < weight else CHAMPION
        if variant == routed:
            return ""
        return (
            f"is the {variant or 'nothing'}'s; at revision {revision} and weight {weight} its bucket "
            f"{digest % BUCKETS} is the {routed}'s"
        )

    def _remember(self, digests: set[int], digest: int) -> None:
        if digest in digests:
            return
        digests.add(digest)
        self._held += 1
        if self._held > KEYS_HELD:
            max(self._splits.values(), key=lambda split: split.held).thin()
            self._held = sum(split.held for split in self._splits.values())


def _prefix(salt: str) -> bytes:
    return salt.encode() + b"\0"


def _digest(prefix: bytes, sticky: bytes) -> int:
    return int.from_bytes(blake2b(prefix + sticky, digest_size=8).digest(), "big")
