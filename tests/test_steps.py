"""The steps of the example: right on a real image, and the same bit for bit every time."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from polystore_flows import steps
from polystore_flows.errors import MismatchError, MissingDependencyError

PIXEL_SIZE = (1.0, 0.325, 0.325)


@pytest.fixture(scope="module")
def sample():
    """A real field of nuclei ``(t, c, z, y, x)`` and its label image ``(y, x)``, from ngio."""
    from ngio.resources import get_sample_info

    info = get_sample_info("Cardiomyocyte")
    image = np.asarray(Image.open(info.img_path), dtype=np.uint16)[None, None, None] * 40
    return image, np.asarray(Image.open(info.labels[0].label_path)).astype(int)


def lamp(height, width):
    """An uneven illumination ``(y, x)`` with mean 1; not of the form that is fitted."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    light = 1 / (1 + 0.5 * ((y + 0.2) ** 2 + (x - 0.3) ** 2))
    return light / light.mean()


def matches(found, truth, overlap=0.5):
    """How many objects overlap one to one by more than `overlap` (intersection over union)."""
    both = np.zeros((found.max() + 1, truth.max() + 1))
    np.add.at(both, (found.ravel(), truth.ravel()), 1)
    union = both.sum(0, keepdims=True) + both.sum(1, keepdims=True) - both
    return int(((both / np.maximum(union, 1))[1:, 1:] > overlap).sum())


def test_nuclei_of_a_real_image_are_found_and_separated(sample):
    """Measured when this was written: 161 found, 153 of them right, of 168."""
    image, truth = sample
    found = steps.segment_nuclei(image, pixel_size=PIXEL_SIZE)[0, 0, 0].astype(int)
    right = matches(found, truth)
    assert right / len(np.unique(truth[truth > 0])) > 0.88
    assert right / found.max() > 0.92


def test_labels_are_numbered_without_gaps_from_plane_to_plane(sample):
    image, _ = sample
    stack = np.concatenate([image[..., :128, :128], image[..., 128:256, :128]], axis=2)
    labels = steps.segment_nuclei(stack, pixel_size=PIXEL_SIZE)
    assert (labels.shape, labels.dtype) == ((1, 1, 2, 128, 128), np.uint32)
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))
    assert labels[0, 0, 0].max() + 1 == np.unique(labels[0, 0, 1])[1]


def test_an_image_without_signal_has_no_nuclei():
    for value in (0, 7):
        image = np.full((1, 1, 1, 40, 50), value, np.uint16)
        labels = steps.segment_nuclei(image, pixel_size=PIXEL_SIZE)
        assert labels.max() == 0
        table = steps.measure_nuclei(labels, image)
        assert (len(table), list(table.columns)[-1]) == (0, "mean_0")
        assert np.array_equal(steps.flat_field([image]), np.ones((1, 40, 50), np.float32))


def test_the_illumination_is_estimated_and_taken_away(sample):
    image, truth = sample
    light = lamp(*image.shape[-2:])
    seen = np.rint(image * light).astype(np.uint16)
    flat = steps.flat_field([seen])
    assert flat.mean() == pytest.approx(1, abs=1e-5)
    assert np.std(flat[0] / light) < np.std(light) / 2
    corrected = steps.correct_illumination(seen, flat)
    assert corrected.dtype == seen.dtype

    def spread(pixels):
        means = [pixels[0, 0, 0][truth == i].mean() for i in np.unique(truth[truth > 0])]
        return np.std(means) / np.mean(means)

    assert spread(corrected) < spread(seen)


def test_channels_are_corrected_each_by_its_own_flat_field(sample):
    image, _ = sample
    light = lamp(*image.shape[-2:])
    two = np.concatenate([image, np.rint(image * light).astype(np.uint16)], axis=1)
    flat = steps.flat_field([two])
    assert flat.shape == (2, 512, 512)
    assert np.std(flat[1]) > 2 * np.std(flat[0])
    alone = steps.correct_illumination(two[:, 1:], flat[1:])
    np.testing.assert_array_equal(steps.correct_illumination(two, flat)[:, 1:], alone)


def test_corrected_integers_are_rounded_and_clipped_and_floats_kept():
    flat = np.array([[[0.5, 2.0]]], np.float32)
    for dtype, wanted in (
        (np.uint8, [255, 100]),
        (np.uint16, [400, 100]),
        (np.float32, [400, 100.0]),
    ):
        image = np.full((1, 1, 1, 1, 2), 200, dtype)
        corrected = steps.correct_illumination(image, flat)
        assert corrected.dtype == dtype
        np.testing.assert_array_equal(corrected.ravel(), wanted)


def test_measurements_are_in_micrometres():
    labels = np.zeros((1, 1, 1, 20, 20), np.uint32)
    labels[..., 4:8, 10:16] = 3
    image = np.stack([np.full((20, 20), 5), np.arange(400).reshape(20, 20)])[None, :, None]
    table = steps.measure_nuclei(labels, image, pixel_size=(2, 0.5, 0.25), channels=["DAPI", "GFP"])
    assert table.to_dict("records") == [
        {
            "label": 3,
            "t": 0,
            "z": 0,
            "y_um": 5.5 * 0.5,
            "x_um": 12.5 * 0.25,
            "area_um2": 24 * 0.125,
            "mean_DAPI": 5.0,
            "mean_GFP": 5.5 * 20 + 12.5,
        }
    ]


def test_results_do_not_depend_on_how_the_pixels_lie_in_memory(sample):
    """A store may hand out a view, another order or a read-only array."""
    image, _ = sample
    odd = np.asfortranarray(image)
    odd.flags.writeable = False
    for given in (odd, image[..., ::-1][..., ::-1]):
        flat = steps.flat_field([given])
        np.testing.assert_array_equal(flat, steps.flat_field([image]))
        corrected = steps.correct_illumination(given, flat)
        labels = steps.segment_nuclei(corrected, pixel_size=PIXEL_SIZE)
        wanted = steps.correct_illumination(image, flat)
        np.testing.assert_array_equal(corrected, wanted)
        np.testing.assert_array_equal(labels, steps.segment_nuclei(wanted, pixel_size=PIXEL_SIZE))


def test_arrays_that_do_not_fit_are_refused():
    image = np.ones((1, 1, 1, 8, 8), np.uint16)
    with pytest.raises(MismatchError, match="one size"):
        steps.flat_field([image, image[..., :4]])
    with pytest.raises(MismatchError, match="flat field's shape"):
        steps.correct_illumination(image, np.ones((2, 8, 8)))
    with pytest.raises(MismatchError, match="do not lie on"):
        steps.measure_nuclei(np.ones((1, 1, 1, 8, 4), int), image)


def test_a_missing_library_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.filters", None)
    with pytest.raises(
        MissingDependencyError, match=r"skimage.*pip install 'polystore-flows\[demo\]'"
    ):
        steps.flat_field([np.ones((1, 1, 1, 8, 8)) * np.arange(8)])


def test_importing_the_steps_loads_no_image_library():
    code = (
        "import sys, polystore_flows.steps;"
        "print([m for m in ('skimage', 'scipy', 'pandas', 'zarr') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
