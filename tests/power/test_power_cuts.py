"""The power is cut, by the death of a whole kernel; what was acknowledged is there afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from cuts import Figures, cut_power

UNHELPFUL = "noauto_da_alloc"


def show(capsys: pytest.CaptureFixture[str], what: str, figures: Figures) -> None:
    with capsys.disabled():
        print(f"\n{what}: {figures}")


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    return cut_power(tmp_path_factory.mktemp("cuts"), cuts=24, seed=1)


@pytest.fixture(scope="module")
def harder(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """By default ext4 itself writes the data of a file that replaces another; others do not."""
    return cut_power(tmp_path_factory.mktemp("harder"), cuts=6, seed=2, options=UNHELPFUL)


def test_24_power_cuts_lose_no_acknowledged_update(
    figures: Figures, capsys: pytest.CaptureFixture[str]
) -> None:
    show(capsys, "power cuts", figures)
    assert (figures.lost, figures.twice, figures.faults) == (0, 0, [])
    assert figures.cuts == 24
    assert figures.acknowledged > 240
    assert figures.slowest < 1


def test_nor_where_the_file_system_does_not_help(
    harder: Figures, capsys: pytest.CaptureFixture[str]
) -> None:
    show(capsys, f"power cuts, {UNHELPFUL}", harder)
    assert (harder.lost, harder.twice, harder.faults) == (0, 0, [])
    assert harder.cuts == 6
    assert harder.acknowledged > 50


def test_what_a_cut_leaves_is_removed_by_the_next_update(figures: Figures, harder: Figures) -> None:
    """A lock file whose text the cut turned into zeros must not keep anybody from that."""
    assert (figures.stay, harder.stay) == (0, 0)
    assert max(figures.left, harder.left) <= 1


@pytest.mark.parametrize(
    ("mutant", "options"),
    [("no-sync", "-"), ("no-folder-sync", "-"), ("no-data-sync", UNHELPFUL)],
)
def test_without_the_syncs_updates_are_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mutant: str, options: str
) -> None:
    """The check of the check: a cut that loses nothing of this would prove nothing."""
    figures = cut_power(tmp_path, cuts=6, seed=3, mutant=mutant, options=options)
    show(capsys, f"{mutant} is {'caught' if figures.caught else 'NOT CAUGHT'}", figures)
    assert figures.caught
