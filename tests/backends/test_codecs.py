"""Each suffix holds what it says, comes back as it was, and a damaged file raises."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from polystore_flows.backends.codecs import (
    decode,
    encode,
    is_image,
    open_image,
    read_image_header,
    suffix_of,
)
from polystore_flows.errors import CorruptDataError, MismatchError, UnsupportedError

WHERE = "disk:///data/x"


def pixels(shape, dtype="uint16"):
    return np.random.default_rng(3).integers(0, 200, shape).astype(dtype)


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="minisblack", **options)
    return buffer.getvalue()


def decoded_or_refused(data, name):
    """The decoded data, or None after an error whose one line starts with the URI."""
    caught = None
    try:
        return decode(data, name, where=WHERE)
    except (CorruptDataError, UnsupportedError) as error:
        caught = str(error)
    assert caught.startswith(WHERE)
    assert "\n" not in caught
    return None


def test_importing_the_codecs_imports_no_heavy_module():
    code = (
        "import sys, polystore_flows.backends.codecs, polystore_flows.backends.disk\n"
        "heavy = {'numpy', 'pandas', 'tifffile', 'PIL', 'zarr'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.tif", ".tif"),
        ("A.TIFF", ".tiff"),
        ("/x.y/a.OME.Tif", ".ome.tif"),
        ("a.ome.tiff", ".ome.tiff"),
        ("a.b.csv", ".csv"),
        ("folder.tif/plain", ""),
        (".json", ""),
        ("a.ome", ".ome"),
        ("", ""),
    ],
)
def test_suffix_is_lower_case_and_knows_ome_tif(name, suffix):
    assert suffix_of(name) == suffix


def test_images_are_known_by_name():
    assert all(map(is_image, ["a.tif", "a.ome.tiff", "a.PNG"]))
    assert not any(map(is_image, ["a.npy", "a.csv", "tif"]))


# TIFF


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64", "bool", ">u2"])
@pytest.mark.parametrize("shape", [(5, 6), (1, 6), (3, 5, 6), (2, 3, 4, 5, 6), (1, 1, 1, 5, 6)])
@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.ome.tif", "A.OME.TIFF"])
def test_an_array_comes_back_from_tiff_as_it_was(name, shape, dtype):
    array = pixels(shape, dtype)
    back = decode(encode(array, name), name)
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("=")
    assert (back == array).all()


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.png"])
def test_colour_images_come_back_as_they_were(name):
    array = pixels((20, 30, 3), "uint8")
    assert (decode(encode(array, name), name) == array).all()


def test_an_ome_tiff_tells_others_its_axes_and_a_plain_one_says_nothing():
    array = pixels((2, 3, 4, 5, 6))
    with tifffile.TiffFile(io.BytesIO(encode(array, "a.ome.tif"))) as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "TCZYX"
        assert tif.series[0].shape == array.shape
    with tifffile.TiffFile(io.BytesIO(encode(array[0, 0, 0], "a.tif"))) as tif:
        assert "ImageDescription" not in tif.pages[0].tags


def test_ome_tiffs_of_others_load_as_tczyx_whatever_order_they_are_stored_in():
    array = pixels((4, 3, 5, 6))
    data = tiff(array, ome=True, metadata={"axes": "ZCYX"})
    back = decode(data, "a.ome.tif")
    assert back.shape == (1, 3, 4, 5, 6)
    assert (back[0] == array.swapaxes(0, 1)).all()
    with open_image(io.BytesIO(data), "a.ome.tif") as image:
        assert (image.plane(c=2, z=3) == array[3, 2]).all()


WRITERS = {
    "plain": {"metadata": None},
    "shaped": {},
    "imagej": {"imagej": True},
    "imagej in one page": {"imagej": True, "truncate": True},
    "one page": {"truncate": True},
    "zlib": {"compression": "zlib"},
    "lzw": {"compression": "lzw", "metadata": None},
    "tiles": {"tile": (16, 16)},
    "compressed tiles": {"tile": (16, 16), "compression": "zlib"},
    "strips": {"rowsperstrip": 7, "metadata": None},
    "bigtiff": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
}


@pytest.mark.parametrize("options", WRITERS.values(), ids=WRITERS)
def test_a_tiff_that_was_cut_off_raises_wherever_it_was_cut(options):
    """tifffile by itself reads fewer pages, or zeros. (Some writers end with bytes that nothing
    refers to; without them the image is still whole.)"""
    array = pixels((3, 40, 50))
    data = tiff(array, **options)
    assert (decode(data, "a.tif").squeeze() == array).all()
    refused = 0
    for length in [*range(0, len(data), 97), *range(len(data) - 60, len(data))]:
        back = decoded_or_refused(data[:length], "a.tif")
        refused += back is None
        assert back is None or (back.squeeze() == array).all(), length
    assert refused > len(data) // 97


@pytest.mark.parametrize("options", WRITERS.values(), ids=WRITERS)
def test_a_header_tells_shape_and_dtype_and_single_planes_can_be_read(options):
    array = pixels((3, 40, 50))
    with open_image(io.BytesIO(tiff(array, **options)), "a.tif") as image:
        t, c, z, y, x = image.header.tczyx
        assert (t * c * z, y, x) == array.shape
        assert image.dtype == array.dtype
        for i in range(3):
            index = {"t": min(i, t - 1), "c": min(i, c - 1), "z": min(i, z - 1)}
            assert (image.plane(**index) == array[i]).all()
        with pytest.raises(IndexError):
            image.plane(t=t)
        assert (image.read().squeeze() == array).all()


def test_a_header_is_read_without_the_pixels():
    """A plate of 384 wells opens by one header; it must not cost one image."""

    class Counting(io.BytesIO):
        read_bytes = 0

        def read(self, size=-1):
            data = super().read(size)
            self.read_bytes += len(data)
            return data

        def readinto(self, buffer):
            count = super().readinto(buffer)
            self.read_bytes += count
            return count

    file = Counting(tiff(pixels((2000, 2000)), metadata=None))
    header = read_image_header(file, "a.tif")
    assert header.shape == (2000, 2000)
    assert file.read_bytes < 10_000


def test_missing_planes_of_an_ome_tiff_are_never_black():
    data = tiff(pixels((3, 40, 50)), ome=True, metadata={"axes": "ZYX"})
    claims_four = data.replace(b'SizeZ="3"', b'SizeZ="4"')
    assert claims_four != data
    with pytest.raises(CorruptDataError):
        decode(claims_four, "a.ome.tif")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff(pixels((5, 6)), metadata=None), None),
        (tiff(pixels((5, 6)), resolution=(72, 72), resolutionunit="INCH"), None),
        (
            tiff(pixels((5, 6)), resolution=(1e4 / 0.65, 1e4 / 0.5), resolutionunit="CENTIMETER"),
            (1.0, 0.5, 0.65),
        ),
        (
            tiff(
                pixels((3, 5, 6)),
                imagej=True,
                resolution=(2.0, 4.0),
                metadata={"spacing": 1.5, "unit": "um", "axes": "ZYX"},
            ),
            (1.5, 0.25, 0.5),
        ),
        (tiff(pixels((5, 6)), imagej=True, resolution=(2.0, 4.0)), None),
        (
            tiff(
                pixels((3, 5, 6)),
                ome=True,
                metadata={
                    "axes": "ZYX",
                    "PhysicalSizeX": 650,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 0.5,
                    "PhysicalSizeYUnit": "µm",
                },
            ),
            (1.0, 0.5, 0.65),
        ),
        (encode(pixels((5, 6)), "a.ome.tif"), None),
    ],
    ids=["none", "print", "tags", "imagej", "imagej without unit", "ome", "ome without"],
)
def test_the_pixel_size_is_in_micrometres_or_unknown(data, expected):
    found = read_image_header(io.BytesIO(data)).pixel_size
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-5))


def test_a_colour_image_has_no_grey_planes():
    with open_image(io.BytesIO(encode(pixels((20, 30, 3), "uint8"), "a.tif")), "a.tif") as image:
        assert image.header.axes == "YXS"
        with pytest.raises(MismatchError):
            image.plane()


# PNG, NPY


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2"])
def test_grey_png_keeps_all_bits(dtype):
    array = np.linspace(0, 255 if dtype == "uint8" else 65535, 30).reshape(5, 6).astype(dtype)
    back = decode(encode(array, "a.png"), "a.png")
    assert back.dtype == array.dtype.newbyteorder("=")
    assert (back == array).all()
    header = read_image_header(io.BytesIO(encode(array, "a.png")), "a.png")
    assert (header.shape, header.dtype) == ((5, 6), back.dtype)


def test_a_png_that_would_lose_bits_is_refused():
    import imagecodecs

    data = imagecodecs.png_encode(pixels((5, 6, 3)))
    with pytest.raises(UnsupportedError, match="16-bit"):
        decode(data, "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_a_png_or_npy_that_was_cut_off_raises_wherever_it_was_cut(name):
    data = encode(pixels((40, 50)), name)
    for length in range(len(data)):
        with pytest.raises(CorruptDataError):
            decode(data[:length], name)


def test_npy_never_holds_or_runs_a_pickle():
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    with pytest.raises(MismatchError):
        encode(np.array([{}], dtype=object), "a.npy")
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    for data in (buffer.getvalue(), pickle.dumps(Bomb())):
        with pytest.raises(CorruptDataError):
            decode(data, "a.npy")


def test_an_npz_is_no_npy():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    with pytest.raises(CorruptDataError):
        decode(buffer.getvalue(), "a.npy")


def test_a_header_that_claims_more_than_the_file_holds_allocates_nothing():
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**14,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    with pytest.raises(CorruptDataError, match="cut off"):
        decode(buffer.getvalue() + bytes(80), "a.npy")


@settings(max_examples=150)
@given(
    st.sampled_from(["a.tif", "a.ome.tif", "a.png", "a.npy", "a.csv", "a.json", "a.txt"]),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damage_raises_nothing_but_our_errors(name, flips):
    sample = {
        "a.csv": pd.DataFrame({"a": ["1", "x"], "b": [1, 2]}),
        "a.json": {"a": [1, None]},
        "a.txt": "µm",
    }
    data = bytearray(encode(sample.get(name, pixels((8, 9))), name))
    for at, byte in flips:
        data[at % len(data)] = byte
    decoded_or_refused(bytes(data), name)


# JSON, text, bytes


@pytest.mark.parametrize(
    "data",
    [float("nan"), [float("inf")], {1: 2}, {"a": {None: 1}}, {"a": object()}, b"x", "\ud800", {1}],
)
def test_json_refuses_what_it_cannot_hold(data):
    with pytest.raises(MismatchError, match=r"a\.json"):
        encode(data, "a.json")


def test_json_refuses_what_contains_itself():
    circle: list = []
    circle.append(circle)
    with pytest.raises(MismatchError):
        encode(circle, "a.json")


@pytest.mark.parametrize("data", [b"", b'{"a": 1', b"NaN", b"[1] [2]", b"\xff", b"[" * 100_000])
def test_corrupt_json_raises(data):
    with pytest.raises(CorruptDataError, match=r"^disk:///data/x: "):
        decode(data, "a.json", where=WHERE)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=("Cs",)), max_size=4), inner, max_size=3
        )
    ),
    max_leaves=8,
)  # fmt: skip


@given(_json)
def test_json_comes_back_as_it_was(data):
    assert decode(encode(data, "a.json"), "a.json") == data


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_text_comes_back_as_it_was_with_its_line_ends(text):
    assert decode(encode(text, "a.txt"), "a.txt") == text


def test_other_suffixes_hold_bytes():
    for data in (b"\0\xff", bytearray(b"\0\xff"), memoryview(b"\0\xff")):
        assert decode(encode(data, "a.bin"), "a.bin") == b"\0\xff"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("text", "a.tif"),
        (b"raw", "a.tif"),
        (np.zeros(3), "a.tif"),
        (np.zeros((0, 3)), "a.tif"),
        (np.zeros((2,) * 6), "a.ome.tif"),
        (np.array([["a"]]), "a.tif"),
        (np.zeros((3, 3)), "a.png"),
        (np.zeros((3, 3, 2), "uint8"), "a.png"),
        ([[1], [2, 3]], "a.npy"),
        (b"raw", "a.txt"),
        ("text", "a.bin"),
        (np.zeros((3, 3)), "a"),
        (np.zeros((3, 3)), "a.csv"),
        ("a,b", "a.csv"),
        ({"a": [1], "b": [1, 2]}, "a.csv"),
    ],
)
def test_data_of_the_wrong_kind_for_its_suffix_is_a_mismatch(data, name):
    with pytest.raises(MismatchError) as caught:
        encode(data, name, where=WHERE)
    assert str(caught.value).startswith(WHERE)
    assert "\n" not in str(caught.value)
