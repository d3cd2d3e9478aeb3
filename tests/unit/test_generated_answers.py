"""The answer files that ``bench.audit_query`` generates are real ones."""

from adapters.answer_files import read_records, read_rows
from bench.audit_query import COMMIT, MODEL, PARTITIONS, answers_of, file_of, stretches
from schemas.forecast import decode_forecast


def test_a_generated_file_is_an_answer_file() -> None:
    """Its records have the digest that its footer states, and are forecasts."""
    stretch = stretches(PARTITIONS * 2 * (COMMIT + 40), 2)[3]
    content = file_of(stretch, is_checked=True)
    assert read_rows(content, stretch.name).num_rows == stretch.rows == COMMIT + 40
    records = read_records(content, stretch.name)
    forecasts = [decode_forecast(record.value or b"") for record in records]
    assert {forecast.model for forecast in forecasts} == {MODEL}
    assert len({forecast.request_id for forecast in forecasts}) == stretch.rows
    table = answers_of(stretch)
    assert [record.offset for record in records] == table["offset"].to_pylist()
    assert max(table["offset"].to_pylist()) < stretch.next


def test_stretches_chain() -> None:
    """Each partition's files begin where the one before ended, and hold all answers together."""
    found = stretches(1_000_000, 3)
    assert sum(stretch.rows for stretch in found) >= 1_000_000 - PARTITIONS * 3
    for partition in range(PARTITIONS):
        chain = [stretch for stretch in found if stretch.partition == partition]
        assert chain[0].first == 0
        assert [stretch.first for stretch in chain[1:]] == [stretch.next for stretch in chain[:-1]]
        assert [stretch.day for stretch in chain] == sorted(stretch.day for stretch in chain)
