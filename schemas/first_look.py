"""The first look at a batch: the short way for requests that are good, which are nearly all.

Envelopes and inputs are decoded, and the quotes of all texts are counted at once. Each text has at least
the quotes that its decoded form tells (see ``schemas.request``), so where the sum is right none of them
repeats a key; where it is not, they are counted one by one. Whatever is not plainly good or plainly bad
is left open here, and is read again with ``decode_request`` and the contract's decoder: they alone say
what is wrong, or that nothing is. Plainly bad are, where no key is repeated, inputs that the decoder does
not take, and a day that the version does not answer for: to have the same error raised again would cost
as much as all the rest.

Skipping the rest took decoding from 1.1 to 0.65 µs a request, and a batch at a time to 0.5.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from itertools import compress
from typing import TypeVar

import msgspec
import numpy as np

from schemas.codec import (
    Row,
    compile_explanation,
    horizon_check,
    inputs_struct,
    quote_counter,
)
from schemas.contract import Beyond, Contract
from schemas.rejection import Rejected
from schemas.request import Request, decode_each

Verdicts = Mapping[int, Rejected | None]
"""By place, what becomes of the requests that are not plainly good: None where it takes a closer look."""

FirstLook = Callable[[Sequence[bytes], Sequence[Request]], tuple[Sequence[Row], Verdicts]]

_QUOTE = b'"'

_QUOTES = 6
"""Of an envelope: two keys and the id. ``requested_at`` has four more."""

Thing = TypeVar("Thing")


def without(things: Sequence[Thing], places: Collection[int]) -> Sequence[Thing]:
    """Those that do not stand at one of these places."""
    if not places:
        return things
    kept = bytearray(b"\1" * len(things))
    for place in places:
        kept[place] = 0
    return list(compress(things, kept))


def compile_first_look(contract: Contract) -> FirstLook:
    """A function from values and their envelopes to the rows of which nothing is left to check.

    They come in order, without those of which something else is said. That is Rejected where a closer
    look would say it, with the same reason. The envelopes are what ``schemas.request.decode_envelope``
    gives: not checked for repeated keys.
    """
    decode = msgspec.json.Decoder(inputs_struct(contract)).decode
    explain = compile_explanation(contract)
    count_quotes = quote_counter(contract)
    outside_horizon = _horizon_verdicts(contract)
    most = contract.max_request_bytes

    def refuse(value: bytes, request: Request, error: Exception) -> Rejected | None:
        raw = bytes(request.inputs)
        around = value.count(_QUOTE) - raw.count(_QUOTE)
        if len(value) > most or [around] != _quotes_around([request]):
            return None
        return explain(raw, error)

    def judge(
        values: Sequence[bytes], requests: Sequence[Request], rows: Sequence[Row]
    ) -> dict[int, Rejected | None]:
        if not rows:
            return {}
        around, inside = _quotes_around(requests), count_quotes(rows)
        verdicts: dict[int, Rejected | None] = {**outside_horizon(rows)}
        if _count_quotes(values) != sum(around) + sum(inside) or max(map(len, values)) > most:
            for place, value in enumerate(values):
                if value.count(_QUOTE) != around[place] + inside[place] or len(value) > most:
                    verdicts[place] = None
        return verdicts

    def look(
        values: Sequence[bytes], requests: Sequence[Request]
    ) -> tuple[Sequence[Row], Verdicts]:
        rows, errors = decode_each(decode, [request.inputs for request in requests])
        verdicts = judge(without(values, errors), without(requests, errors), rows)
        places = without(range(len(values)), errors)
        others = {places[at]: verdict for at, verdict in verdicts.items()}
        for place, error in errors.items():
            others[place] = refuse(values[place], requests[place], error)
        return without(rows, verdicts), others

    return look


def _quotes_around(requests: Sequence[Request]) -> list[int]:
    """What the envelope of each adds to the quotes of its inputs."""
    return [_QUOTES if each.requested_at is None else _QUOTES + 4 for each in requests]


def _count_quotes(texts: Sequence[bytes]) -> int:
    """Of all together, in one array: counting in each takes five times as long."""
    return int(np.count_nonzero(np.frombuffer(b"".join(texts), np.uint8) == ord(_QUOTE)))


def _horizon_verdicts(contract: Contract) -> Callable[[Sequence[Row]], Mapping[int, Rejected]]:
    """What says, by place, which rows are of a day that the version does not answer for."""
    horizon = contract.horizon
    if horizon is None:
        return lambda rows: {}
    name, first = horizon.field, horizon.first
    last = horizon.last if horizon.beyond is Beyond.REJECT else date.max
    check = horizon_check(contract)

    def outside(rows: Sequence[Row]) -> Mapping[int, Rejected]:
        days = [getattr(row, name) for row in rows]
        if first <= min(days) and max(days) <= last:
            return {}
        judged = ((place, check(row)) for place, row in enumerate(rows))
        return {place: rejected for place, rejected in judged if rejected is not None}

    return outside
