"""The mapping of releases: what a dict says, without being copied."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.numbered import RUN, Numbered

LENGTHS = st.integers(0, 3 * RUN + 1)


@given(LENGTHS, st.lists(st.tuples(st.integers(0, 10**6), st.text(max_size=3)), max_size=8))
def test_it_says_what_a_dict_would(length: int, changes: list[tuple[int, str]]) -> None:
    """After any appends and changes, and earlier ones are what they were."""
    made: Numbered[str] = Numbered()
    plain: dict[int, str] = {}
    for number in range(1, length + 1):
        before, made = made, made.append(str(number))
        assert len(before) == number - 1
        plain[number] = str(number)
    for place, value in changes:
        if not plain:
            break
        number = place % length + 1
        before, made = made, made.put(number, value)
        assert before == plain
        plain[number] = value
    assert made == plain
    assert list(made.items()) == list(plain.items())
    assert (len(made), 0 in made, length + 1 in made) == (length, False, False)
    assert Numbered.of(plain) == made
    assert Numbered.of(made) is made
    assert repr(made) == f"Numbered({plain!r})"


@pytest.mark.parametrize("number", [0, -1, 4])
def test_a_number_that_is_not_there_is_an_error(number: int) -> None:
    """As in a dict, also where a list would count from its end."""
    made = Numbered.of({1: "a", 2: "b", 3: "c"})
    with pytest.raises(KeyError):
        made[number]
    with pytest.raises(KeyError):
        made.put(number, "x")
