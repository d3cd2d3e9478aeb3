"""The memory budget: whose limit counts, what is taken of it, and giving back."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from consumer.memory import MIB, Budget, budget_of, give_back, resident_bytes

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files below a root that stands for the system's."""

    def put(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return put


def test_the_setting_counts_what_this_process_has(tmp_path: Path) -> None:
    """With a setting nothing else is looked at."""
    budget = budget_of(500, tmp_path)
    assert budget.limit == 500 * MIB
    assert not budget.is_shared
    assert abs(budget.used() - resident_bytes()) < 16 * MIB


def test_a_container_is_the_limit_of_all_in_it(write: Write, tmp_path: Path) -> None:
    """Version 2: the smallest limit on the way up counts, and what is used there but for cached files.

    Those that were read more than once are active; what is mapped is code that runs.
    """
    write(
        proc__self__cgroup="0::/pod/one\n",
        sys__fs__cgroup__pod__one__memory_dot_max="max\n",
        sys__fs__cgroup__pod__memory_dot_max=f"{300 * MIB}\n",
        sys__fs__cgroup__pod__memory_dot_current=f"{200 * MIB}\n",
        sys__fs__cgroup__pod__memory_dot_stat=(
            f"anon 7\nfile_mapped {10 * MIB}\ninactive_file {50 * MIB}\nactive_file {70 * MIB}\n"
        ),
        sys__fs__cgroup__memory_dot_max=f"{900 * MIB}\n",
    )
    budget = budget_of(0, tmp_path)
    assert (budget.limit, budget.used(), budget.room()) == (300 * MIB, 90 * MIB, 210 * MIB)
    assert "container" in budget.whose
    assert budget.is_shared


def test_the_older_control_groups_count_too(write: Write, tmp_path: Path) -> None:
    """Version 1, where the path is the host's and only the mount itself is there."""
    write(
        proc__self__cgroup="5:cpu:/host/abc\n4:memory:/host/abc\n0::/\n",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes=f"{400 * MIB}",
        sys__fs__cgroup__memory__memory_dot_usage_in_bytes=f"{100 * MIB}",
        sys__fs__cgroup__memory__memory_dot_stat=(
            f"total_inactive_file {10 * MIB}\ntotal_active_file {40 * MIB}\n"
            f"total_mapped_file {5 * MIB}\nactive_file {MIB}\n"
        ),
    )
    budget = budget_of(0, tmp_path)
    assert (budget.limit, budget.used()) == (400 * MIB, 55 * MIB)


def test_what_is_mapped_never_counts_twice(write: Write, tmp_path: Path) -> None:
    """Shared memory is mapped and no file: it takes nothing off what files free. No list, no files."""
    write(
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_dot_max=f"{300 * MIB}\n",
        sys__fs__cgroup__memory_dot_current=f"{200 * MIB}\n",
    )
    assert budget_of(0, tmp_path).used() == 200 * MIB
    write(sys__fs__cgroup__memory_dot_stat=f"file_mapped {20 * MIB}\nactive_file {MIB}\n")
    assert budget_of(0, tmp_path).used() == 200 * MIB


def test_no_limit_means_the_machines(write: Write, tmp_path: Path) -> None:
    """Version 1 writes a number near 2⁶³ where there is none."""
    write(
        proc__self__cgroup="4:memory:/\n",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes="9223372036854771712",
    )
    for root in (tmp_path, tmp_path / "nothing"):
        budget = budget_of(0, root)
        assert budget.limit == psutil.virtual_memory().total
        assert 0 < budget.used() < budget.limit


def test_what_does_not_fit_is_told_with_both_figures() -> None:
    """What it needs, what is taken, and of how much."""
    budget = Budget(100 * MIB, lambda: 70 * MIB, "consumer.memory_megabytes")
    assert budget.problem(30 * MIB) is None
    assert budget.problem(31 * MIB) == (
        "it needs 31 MiB, and 70 of the 100 MiB of consumer.memory_megabytes are taken"
    )
    assert budget.overrun() is None
    over = Budget(60 * MIB, lambda: 70 * MIB, "the container's memory limit")
    assert over.overrun() == (
        "with it loaded 70 MiB are taken, and the container's memory limit is 60 MiB"
    )


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc keeps, and gives back"
)
def test_what_was_freed_is_given_back() -> None:
    """Blocks below the last one stay with the C library until it is told."""
    blocks = [bytes(64 * 1024) for _ in range(2_000)]
    last = bytes(64 * 1024)
    full = resident_bytes()
    blocks.clear()
    give_back()
    assert resident_bytes() < full - 60 * MIB
    assert last is not None
