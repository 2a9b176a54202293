"""Images without their pixels: axes, channels, pyramid levels, and arrays of any origin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polystore_flows.errors import AddressError, MismatchError
from polystore_flows.hcs.image import (
    ImageInfo,
    check_index,
    five_dimensional,
    halve,
    named_channels,
    pyramid_levels,
    to_numpy,
)


def info(**changes):
    settings = {
        "shape": (1, 2, 3, 4, 5),
        "dtype": np.dtype("uint16"),
        "channels": named_channels(["DAPI", "GFP"]),
        "pixel_size": (1.0, 0.5, 0.5),
    }
    return ImageInfo(**(settings | changes))


def test_a_channel_is_found_by_name_or_index():
    assert info().channel_index("GFP") == 1
    assert info().channel_index(0) == 0
    assert info().channel_index(-1) == 1
    with pytest.raises(AddressError, match="DAPI, GFP"):
        info().channel_index("dapi")
    with pytest.raises(AddressError, match="c=2"):
        info().channel_index(2)


def test_an_index_outside_is_told_with_what_there_is():
    assert check_index("z", -1, 3) == 2
    for index in (3, -4):
        with pytest.raises(AddressError, match=f"z={index}.*z 0 to 2"):
            check_index("z", index, 3)


def test_channels_have_the_colour_of_their_dye_or_one_of_their_own():
    colors = [c.color for c in named_channels(["DAPI", "FITC", "Cy5", "Brightfield", "tdTomato"])]
    assert colors[:3] == ["0000FF", "00FF00", "FF00FF"]
    assert all(len(color) == 6 for color in colors)
    assert [c.name for c in named_channels(("a", "b"))] == ["a", "b"]
    assert len({c.color for c in named_channels(list("1234567"))}) == 7


@pytest.mark.parametrize("name", ["Laser", "Filter", "Power"])
def test_a_dye_is_not_read_out_of_the_middle_of_a_word(name):
    """``er`` is the endoplasmic reticulum only as a word of its own."""
    assert named_channels([name])[0].color == named_channels(["x"])[0].color


@pytest.mark.parametrize(
    ("shape", "levels"), [((256, 256), 1), ((257, 10), 2), ((1, 1, 1, 2160, 2160), 5), ((1, 1), 1)]
)
def test_a_pyramid_ends_when_a_plane_is_small(shape, levels):
    assert pyramid_levels(shape) == levels


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(["uint8", "uint16", "int32", "float32"])
)
def test_halving_is_the_mean_of_two_by_two_pixels(height, width, dtype):
    array = np.random.default_rng(height).integers(0, 255, (2, height, width)).astype(dtype)
    half = halve(array)
    assert half.dtype == array.dtype
    assert half.shape == (2, max(height // 2, 1), max(width // 2, 1))
    expected = array[:, : max(height // 2 * 2, 1), : max(width // 2 * 2, 1)].astype(float)
    rows = expected.reshape(2, half.shape[1], -1, expected.shape[2]).mean(axis=2)
    mean = rows.reshape(2, half.shape[1], half.shape[2], -1).mean(axis=3)
    exact = mean if dtype == "float32" else np.rint(mean)
    assert np.allclose(half, exact, atol=1e-4)


def test_halving_labels_makes_no_new_label():
    labels = np.array([[1, 5, 9], [5, 5, 9], [7, 7, 7]], "uint16")
    assert halve(labels, labels=True).tolist() == [[1]]
    assert set(np.unique(halve(np.kron(labels, np.ones((3, 3), "uint16")), labels=True))) <= {
        1,
        5,
        7,
        9,
    }


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int64", "uint64"])
def test_halving_the_brightest_pixels_does_not_overflow(dtype):
    array = np.full((4, 4), np.iinfo(dtype).max, dtype)
    assert (halve(array) == array[:2, :2]).all()


@pytest.mark.parametrize("data", ["text", b"bytes", {"a": 1}, object(), None, 7])
def test_what_is_no_array_is_refused(data):
    with pytest.raises(MismatchError, match="array"):
        to_numpy(data)


def test_a_numpy_array_is_not_copied():
    array = np.zeros((3, 3))
    assert to_numpy(array) is array


def test_an_image_has_five_axes():
    plane = np.arange(12, dtype="uint16").reshape(3, 4)
    assert five_dimensional(plane).shape == (1, 1, 1, 3, 4)
    assert five_dimensional(plane[None, None, None]).shape == (1, 1, 1, 3, 4)
    for shape in [(4,), (2, 3, 4), (1, 2, 3, 4), (1,) * 6]:
        with pytest.raises(MismatchError, match="axes"):
            five_dimensional(np.zeros(shape))
    with pytest.raises(MismatchError, match="no pixel"):
        five_dimensional(np.zeros((0, 4)))
    with pytest.raises(MismatchError, match="complex"):
        five_dimensional(np.zeros((3, 4), complex))
    with pytest.raises(MismatchError):
        five_dimensional(np.array([["a"]]))
    with pytest.raises(MismatchError):
        five_dimensional([[1], [2, 3]])


def test_pixels_are_contiguous_native_numbers():
    swapped = np.arange(12, dtype=">u2").reshape(3, 4).T
    array = five_dimensional(swapped)
    assert array.dtype == np.dtype("uint16")
    assert array.dtype.isnative
    assert array.flags.c_contiguous
    assert (array[0, 0, 0] == swapped).all()
    mask = five_dimensional(np.array([[True, False]]))
    assert mask.dtype == np.uint8
