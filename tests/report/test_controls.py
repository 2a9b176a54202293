"""The statistics of controls, against numbers computed by hand."""

import pytest

from polystore_flows.report.controls import role_of, separation


def test_z_prime_and_its_kin_are_what_their_papers_say():
    """Means 12 and 2, standard deviations 2 and 1; medians the same, their deviations 2 and 1."""
    found = separation([10, 12, 14], [1, 2, 3])
    assert found.z_prime == pytest.approx(1 - 3 * (2 + 1) / 10)
    assert found.robust_z_prime == pytest.approx(1 - 3 * 1.4826 * (2 + 1) / 10)
    assert found.ssmd == pytest.approx(10 / 5**0.5)
    assert found.signal_to_background == 6
    assert (found.positive.n, found.positive.mean, found.positive.sd) == (3, 12, 2)


def test_an_assay_whose_positive_controls_are_lower_is_as_good():
    found = separation([1, 2, 3], [10, 12, 14])
    assert found.z_prime == pytest.approx(0.1)
    assert found.ssmd == pytest.approx(-(10 / 5**0.5))


def test_what_cannot_be_divided_is_not_said():
    same = separation([5, 5], [5, 5])
    assert (same.z_prime, same.robust_z_prime, same.ssmd) == (None, None, None)
    assert separation([5, 6], [-1, 1]).signal_to_background is None


@pytest.mark.parametrize("groups", [([1], [2, 3]), ([1, 2], []), ([], [])])
def test_one_well_has_no_standard_deviation(groups):
    assert separation(*groups) is None


@pytest.mark.parametrize(
    ("value", "role"),
    [
        ("positive", "positive"),
        ("Pos. control", "positive"),
        ("poscon_diverse", "positive"),
        ("+", "positive"),
        ("negcon", "negative"),
        (" NEG ", "negative"),
        ("-", "negative"),
        ("-80 °C", None),
        ("sample", None),
        ("", None),
        (1, None),
        (None, None),
    ],
)
def test_a_plate_map_names_controls_in_words_that_labs_use(value, role):
    assert role_of(value) == role
