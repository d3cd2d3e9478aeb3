"""Routing: sticky, monotone, fair, and the same in every language.

The salts here are fixed, so what is counted is the same in every run; the bounds are what chance
allows: five standard deviations, which a fair hash misses once in two million tries.
"""

import itertools
import math
import re
from collections import Counter
from hashlib import blake2b
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.routing import BUCKETS, Routing, bucket, route
from modelwire.replay import series_key
from schemas.contract import Binding, Contract, Field, FieldType, Output, TensorType
from schemas.forecast import Variant
from trainer.dataset import load_dataset, shipped_datasets

ADR = Path(__file__).parents[2] / "docs" / "adr" / "0003-routing-hash.md"
SIGMAS = 5.0
FIXED_SALTS = ("9f86d081884c7d65", "60303ae22b998861", "salt", "ü")
WEIGHTS_OF_A_CANARY = (100, 1_000, 5_000)

KEYS = st.binary(min_size=0, max_size=40)
SALTS = st.text(min_size=1, max_size=20)
WEIGHTS = st.integers(0, BUCKETS)


def shipped_keys() -> list[bytes]:
    """The key of every series of the shipped panel, as its requests carry it."""
    file = load_dataset(shipped_datasets() / "online_retail.toml")
    names = list(file.dataset.keys)
    contract = Contract(
        fields=tuple(
            Field(
                name=name,
                type=FieldType.STRING,
                binding=Binding(name, TensorType.STRING),
                description=name,
            )
            for name in names
        ),
        outputs=(
            Output(name="units", tensor="units", type=FieldType.FLOAT32, description="units"),
        ),
    )
    rows = pq.read_table(file.source, columns=names).to_pylist()
    return sorted({key for row in rows if (key := series_key(contract, row)) is not None})


def generated_keys() -> list[bytes]:
    """100,000 keys that differ in a few digits, as keys of a system do."""
    return [
        f"store-{number % 1_000:04}|item-{number // 1_000:03}".encode() for number in range(10**5)
    ]


@pytest.fixture(scope="module", params=[shipped_keys, generated_keys], ids=["panel", "generated"])
def keys(request: pytest.FixtureRequest) -> list[bytes]:
    """Many keys, each once."""
    made: list[bytes] = request.param()
    assert len(made) == len(set(made)) >= 19_000
    return made


def candidates(salt: str, weight: int, keys: list[bytes]) -> set[bytes]:
    """The keys that the candidate answers."""
    routing = Routing(1, 2, weight, salt)
    return {key for key in keys if route(routing, key, "id") is Variant.CANDIDATE}


def assert_by_chance(found: int, tries: int, chance: float) -> None:
    """``found`` of ``tries`` is within the binomial bounds."""
    assert abs(found - tries * chance) <= SIGMAS * math.sqrt(tries * chance * (1 - chance))


@pytest.mark.parametrize("salt", FIXED_SALTS)
def test_the_share_is_the_weight(keys: list[bytes], salt: str) -> None:
    """At 1, 10 and 50 % the candidate answers that share of the keys, as near as chance allows."""
    for weight in WEIGHTS_OF_A_CANARY:
        found = len(candidates(salt, weight, keys))
        assert_by_chance(found, len(keys), weight / BUCKETS)


def test_a_canary_up_and_back_moves_keys_one_way(keys: list[bytes]) -> None:
    """1 → 10 → 50 → 100 %: who is with the candidate stays; and back, the same ones in reverse."""
    up = [candidates("9f86d081884c7d65", weight, keys) for weight in (0, 100, 1_000, 5_000, 10_000)]
    for fewer, more in itertools.pairwise(up):
        assert fewer < more
    assert not up[0]
    assert up[-1] == set(keys)
    assert candidates("9f86d081884c7d65", 1_000, keys) == up[2]


def test_each_salt_has_buckets_of_its_own(keys: list[bytes]) -> None:
    """Of two rollouts' buckets, one says nothing of the other: chi-square over 10 × 10 tenths."""
    for one, two in itertools.combinations(FIXED_SALTS, 2):
        pairs = Counter((bucket(one, key) // 1_000, bucket(two, key) // 1_000) for key in keys)
        expected = len(keys) / 100
        cells = [(row, column) for row in range(10) for column in range(10)]
        chi_square = sum((pairs[cell] - expected) ** 2 for cell in cells) / expected
        freedom = len(cells) - 1
        assert abs(chi_square - freedom) <= SIGMAS * math.sqrt(2 * freedom)
        both = candidates(one, 1_000, keys) & candidates(two, 1_000, keys)
        assert_by_chance(len(both), len(keys), 0.01)


def test_every_bucket_is_used_alike() -> None:
    """Chi-square over all 10,000 buckets: no part of the range is favoured."""
    keys = generated_keys() + shipped_keys()
    counts = Counter(bucket("60303ae22b998861", key) for key in keys)
    expected = len(keys) / BUCKETS
    chi_square = sum((counts[each] - expected) ** 2 / expected for each in range(BUCKETS))
    assert set(counts) <= set(range(BUCKETS))
    assert abs(chi_square - (BUCKETS - 1)) <= SIGMAS * math.sqrt(2 * (BUCKETS - 1))


@given(SALTS, KEYS, WEIGHTS, WEIGHTS)
def test_raising_the_weight_moves_keys_one_way(salt: str, key: bytes, one: int, two: int) -> None:
    """A key that the candidate answers at a weight, it answers at every higher weight."""
    low, high = sorted((one, two))
    at_low = route(Routing(1, 2, low, salt), key, "id")
    at_high = route(Routing(1, 2, high, salt), key, "id")
    assert (at_low, at_high) != (Variant.CANDIDATE, Variant.CHAMPION)


@given(SALTS, KEYS, WEIGHTS)
def test_a_key_keeps_its_variant_while_the_weight_stands(
    salt: str, key: bytes, weight: int
) -> None:
    """Routing depends on nothing but salt, key and weight; at 0 and 100 % on nothing at all."""
    assert 0 <= bucket(salt, key) < BUCKETS
    variants = {route(Routing(1, 2, weight, salt), key, f"id-{n}") for n in range(3)}
    assert variants == {route(Routing(7, 9, weight, salt), key, "another")}
    assert route(Routing(1, 2, 0, salt), key, "id") is Variant.CHAMPION
    assert route(Routing(1, 2, BUCKETS, salt), key, "id") is Variant.CANDIDATE


@given(SALTS, KEYS)
def test_the_weight_at_which_a_key_moves_is_its_bucket(salt: str, key: bytes) -> None:
    """Exactly one basis point makes the difference."""
    edge = bucket(salt, key)
    assert route(Routing(1, 2, edge, salt), key, "id") is Variant.CHAMPION
    assert route(Routing(1, 2, edge + 1, salt), key, "id") is Variant.CANDIDATE


def test_without_a_key_the_request_id_decides() -> None:
    """A request without a key is sticky by its id; an empty key is a key."""
    routing = Routing(1, 2, 5_000, "salt")
    by_id = [route(routing, None, f"r{n}") for n in range(200)]
    assert by_id == [route(routing, f"r{n}".encode(), "other") for n in range(200)]
    assert set(by_id) == {Variant.CHAMPION, Variant.CANDIDATE}
    assert len({route(routing, b"", f"r{n}") for n in range(200)}) == 1


def test_the_hash_of_routing_is_pinned() -> None:
    """Another language must reproduce these buckets: they are part of the wire format."""
    keys = (b"", b"United Kingdom|85123A", b"\xff")
    assert [bucket("salt", key) for key in keys] == [8063, 6298, 2505]
    assert BUCKETS == 10_000


def test_the_recipe_gives_the_vectors_that_it_promises() -> None:
    """What the decision record tells other languages to do leads to its own figures, and to ours."""
    row = r"^\| `(.+)` \| `([0-9a-f]+)` \| `([0-9a-f]{16})` \| (\d+) \|$"
    text = ADR.read_text(encoding="utf-8")
    vectors = re.findall(row, text, re.MULTILINE)
    assert len(vectors) == 3
    for salt, key, digest, expected in vectors:
        recipe = blake2b(salt.encode() + b"\0" + bytes.fromhex(key), digest_size=8)
        assert recipe.hexdigest() == digest
        assert int(digest, 16) % 10_000 == int(expected) == bucket(salt, bytes.fromhex(key))
    assert "`route/1`" in text
