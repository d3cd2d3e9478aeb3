"""The names that people type for bundles.

A bundle is named by its digest (``sha256:…``), by the beginning of its 64 hexadecimal digits where only
one bundle has it, or by the address of its folder, which must lie in the store that is asked.
"""

import re
from pathlib import Path

from adapters.bundles import ELSEWHERE, list_bundles
from adapters.object_store import ObjectStore
from schemas.errors import NotFound, UsageProblem

SHORTEST_PREFIX = 6
"""Fewest hexadecimal digits that name a bundle. Among a thousand bundles, two share their first six in
3 % of cases."""

SHOWN_DIGITS = 12
"""Hexadecimal digits of a digest in a message or a table: any command takes them for the whole."""

_DIGITS = re.compile(r"[0-9a-f]+")
_FOLDER = re.compile(r"(?P<store>.*)/bundles/(?P<digits>[0-9a-f]{64})")
_SHOWN = 5


def find_bundle(store: ObjectStore, text: str) -> str:
    """The digest of the bundle that ``text`` names.

    A whole digest is believed; whether the bundle is there shows when it is read. Raises UsageProblem
    for a name that is none, or that several bundles share, and NotFound.
    """
    if "/" in text:
        return _digest_of_address(store, text)
    digits = text.removeprefix("sha256:")
    if not _DIGITS.fullmatch(digits) or not SHORTEST_PREFIX <= len(digits) <= 64:
        raise UsageProblem(
            f"{text!r} names no bundle",
            hint="give its digest (sha256:…), at least "
            f"{SHORTEST_PREFIX} of its hexadecimal digits, or the address that `modelwire train` printed",
        )
    if len(digits) == 64:
        return f"sha256:{digits}"
    found = sorted(d for d in list_bundles(store) if d.startswith(f"sha256:{digits}"))
    if not found:
        raise NotFound(
            f"no bundle in {store.url} has a digest that begins with {digits}",
            hint=f"check the digits; {ELSEWHERE}",
        )
    if len(found) > 1:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise UsageProblem(
            f"{len(found)} bundles begin with {digits}: {', '.join(found[:_SHOWN])}{more}",
            hint="give more of the digits",
        )
    return found[0]


def _digest_of_address(store: ObjectStore, text: str) -> str:
    address = text if "://" in text else Path(text).absolute().as_uri()
    matched = _FOLDER.fullmatch(address.rstrip("/"))
    if matched is None:
        raise UsageProblem(
            f"{text!r} is not the address of a bundle",
            hint="it ends with /bundles/ and the 64 hexadecimal digits of the digest",
        )
    if matched["store"] != store.url:
        raise UsageProblem(
            f"the bundle lies in {matched['store']}, but the store is {store.url}",
            hint="consumers read from one store; bring the bundle there: modelwire bundle copy "
            f"{matched['digits'][:SHOWN_DIGITS]} --from {matched['store']}",
        )
    return f"sha256:{matched['digits']}"
