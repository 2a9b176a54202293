"""Batches: nothing is read twice, nothing is written unless all of it fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.backends.zarr import plate as plates
from polystore_flows.errors import AlreadyExistsError, MismatchError
from polystore_flows.hcs.plate import Plate

Pixels = Callable[..., Any]


def test_a_batch_comes_back_in_the_order_of_its_argument(plate: Plate, pixels: Pixels) -> None:
    arrays = [pixels(seed=seed) for seed in range(4)]
    uris = [f"{plate.uri}/{field}" for field in ("C/4/0", "B/3/1", "B/3/0", "A/1/0")]
    ps.save_batch(arrays, uris)
    assert plate.wells == ("A/1", "B/3", "C/4")
    order = [2, 0, 3, 1, 2]
    for array, number in zip(ps.load_batch([uris[i] for i in order]), order, strict=True):
        np.testing.assert_array_equal(array, arrays[number])


def test_what_is_named_twice_is_read_once_and_given_twice(
    plate: Plate, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    plate.write_image("B/3", 0, pixels())
    opened: list[str] = []
    image = plates.ZarrImage

    class Counted(image):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any) -> None:
            opened.append(args[1])
            super().__init__(*args)

    monkeypatch.setattr(plates, "ZarrImage", Counted)
    uris = [f"{plate.uri}/B/03/0?c=GFP&z={z}&t=1" for z in (0, 2, 1, 0)]
    planes = ps.load_batch(uris)
    assert len(opened) == 1
    planes[0][...] = 0
    np.testing.assert_array_equal(planes[3], pixels()[1, 1, 0])


@pytest.mark.parametrize("wrong", [(2, 2, 3, 45, 66), "float32"])
def test_mixed_shapes_and_dtypes_are_refused_before_anything_is_written(
    plate: Plate, pixels: Pixels, wrong: Any
) -> None:
    """A uint16 plate would wrap floats silently."""
    other = pixels(dtype=wrong) if isinstance(wrong, str) else pixels(wrong)
    uris = [f"{plate.uri}/{well}/0" for well in ("A/1", "A/2", "A/3")]
    with pytest.raises(MismatchError, match="/A/3/0: the array is"):
        ps.save_batch([pixels(), pixels(), other], uris)
    assert plate.wells == ()


def test_an_existing_field_is_refused_before_anything_is_written(
    plate: Plate, pixels: Pixels
) -> None:
    plate.write_image("A/2", 0, pixels())
    with pytest.raises(AlreadyExistsError, match="/A/2/0 exists"):
        ps.save_batch([pixels()] * 2, [f"{plate.uri}/A/1/0", f"{plate.uri}/A/2/0"])
    assert plate.wells == ("A/2",)
    with pytest.raises(MismatchError, match="given twice"):
        ps.save_batch([pixels()] * 2, [f"{plate.uri}/A/1/0", f"{plate.uri}/A/01/0"])
    assert plate.wells == ("A/2",)


def test_texts_and_images_may_be_loaded_in_one_batch(plate: Plate, pixels: Pixels) -> None:
    uris = [f"{plate.uri}/A/1/0", f"{plate.uri}/tables/a.txt"]
    ps.save_batch([pixels(), "text"], uris)
    image, text = ps.load_batch(uris)
    np.testing.assert_array_equal(image, pixels())
    assert text == "text"
