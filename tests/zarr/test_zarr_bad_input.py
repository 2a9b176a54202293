"""Bad input and bad luck: each is one clear error or the right answer, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import polystore_flows as ps
from polystore_flows.errors import (
    AddressError,
    AlreadyExistsError,
    CorruptDataError,
    CorruptMetadataError,
    MismatchError,
    NoSpaceError,
    PolystoreError,
    URIError,
)
from polystore_flows.hcs.plate import Plate

Pixels = Callable[..., Any]


def _root(plate: Plate) -> Path:
    return Path(plate.uri.removeprefix("zarr://"))


def _tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def _write_wells(plate: Plate, noise: Any, written: list[int]) -> None:
    for column in range(1, 13):
        plate.write_well(f"A/{column}", {0: noise + column})
        written.append(column)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_full_disk_refuses_a_well_and_keeps_the_others(disk: Path, version: Any) -> None:
    """Also the old one where a well was to be replaced; with more room writing goes on."""
    plate = ps.create_plate(disk / "p.zarr", channels=["DAPI"], ngff_version=version)
    noise = np.random.default_rng(0).integers(0, 2**16, (1, 1, 3, 300, 300)).astype("u2")
    kept: list[int] = []
    with pytest.raises(OSError, match=r"p\.zarr.*(?i:no space).*free some") as caught:
        _write_wells(plate, noise, kept)
    assert isinstance(caught.value, PolystoreError)
    assert "\n" not in str(caught.value)
    assert 1 <= len(kept) < 6
    with pytest.raises(NoSpaceError, match=r"^zarr:///.*/p\.zarr/A/1: no space is left; free some"):
        plate.write_well("A/1", {0: noise, 1: noise}, overwrite=True)
    again = ps.open_plate(plate.uri)
    assert again.wells == tuple(f"A/{column}" for column in kept)
    for column in kept:
        np.testing.assert_array_equal(again[f"A/{column}"].image(0).read(), noise + column)
    assert {p.name for p in disk.iterdir() if p.suffix != ".lock"} == {"p.zarr"}
    subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
    plate.write_well("A/1", {0: noise, 1: noise}, overwrite=True)
    plate.write_well(f"A/{len(kept) + 1}", {0: noise})
    assert ps.get_backend("zarr").check_plate(plate.uri) == []


@pytest.mark.parametrize(
    ("what", "level"),
    [("B/3", 0), ("B/3/0", 0), ("B/3/0?t=0&c=0&z=0", 0), ("B/3/0?level=1", 1)],
)
def test_a_flipped_bit_in_a_shard_names_its_field(
    tmp_path: Path, pixels: Pixels, what: str, level: int
) -> None:
    """NGFF 0.4 knows no checksums, so a flipped bit in a 0.4 plate may go unnoticed."""
    plate = ps.create_plate(tmp_path / "p.zarr", levels=2)
    plate.write_image("B/3", 0, pixels())
    shard = tmp_path / f"p.zarr/B/3/0/{level}/c/0/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"p\.zarr/B/3/0 cannot be read: .*CRC-32C"):
        ps.load(f"{plate.uri}/{what}")


def test_a_plane_is_not_saved_into_a_corrupt_field(tmp_path: Path, pixels: Pixels) -> None:
    """What can still be read of it would be gone."""
    plate = ps.create_plate(tmp_path / "p.zarr")
    plate.write_image("B/3", 0, pixels())
    shard = tmp_path / "p.zarr/B/3/0/0/c/0/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"p\.zarr/B/3/0 cannot be read: .*CRC-32C"):
        ps.save(pixels((45, 67)), f"{plate.uri}/B/3/0?t=1&c=1&z=1", overwrite=True)
    assert shard.read_bytes() == content


@pytest.mark.parametrize("cut", [0, 1, 40, 64, 65, 90, -2])
def test_torn_notes_in_the_lock_file_lose_no_well(
    plate: Plate, pixels: Pixels, tmp_path: Path, cut: int
) -> None:
    """There is no journal to be truncated; what is appended to is only the notes of the lock."""
    plate.write_image("B/3", 0, pixels())
    lock = tmp_path / ".p.zarr.lock"
    notes = lock.read_bytes()
    assert len(notes) > 90
    lock.write_bytes(notes[:cut] + (b"\0" * 5 if cut == 40 else b""))
    plate.write_image("B/4", 0, pixels())
    plate.write_image("B/3", 0, pixels(seed=1), overwrite=True)
    assert ps.open_plate(plate.uri).wells == ("B/3", "B/4")
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/3/0"), pixels(seed=1))


def test_a_well_under_two_names_is_refused(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("A/1", 0, pixels())
    before = _tree(_root(plate))
    with pytest.raises(AlreadyExistsError, match=r"A/1/0 exists; give overwrite=True"):
        plate.write_image("A/01", 0, pixels(seed=1))
    with pytest.raises(MismatchError, match="A/01/1 is given twice"):
        ps.save_batch([pixels()] * 2, [f"{plate.uri}/A/1/1", f"{plate.uri}/A/01/1"])
    assert _tree(_root(plate)) == before


def test_a_plate_that_lists_a_well_under_two_names_is_not_guessed_at(
    tmp_path: Path, plate: Plate, pixels: Pixels
) -> None:
    plate.write_image("A/1", 0, pixels())
    root = _root(plate)
    shutil.copytree(root / "A/1", root / "A/01")
    document = next(p for p in (root / "zarr.json", root / ".zattrs") if p.exists())
    whole = json.loads(document.read_text())
    found = ps.get_backend("zarr").check_plate(plate.uri, repair=True)
    assert found == []
    assert [f.rule for f in ps.get_backend("zarr").check_plate(plate.uri)] == ["stray-well"]
    assert plate.wells == ("A/1",)
    listed = whole["attributes"]["ome"] if document.name == "zarr.json" else whole
    listed["plate"]["columns"].append({"name": "01"})
    listed["plate"]["wells"].append({"path": "A/01", "rowIndex": 0, "columnIndex": 12})
    document.write_text(json.dumps(whole))
    with pytest.raises(CorruptMetadataError, match=r"p\.zarr lists a well twice"):
        ps.open_plate(plate.uri)


OUTSIDE = ["../B/3/0", "../x.csv", "tables/../../x.csv", "B/../../x.json", "B/3/../../../p/0"]


@pytest.mark.parametrize("inner", OUTSIDE)
def test_no_address_leads_out_of_the_plate(plate: Plate, pixels: Pixels, inner: str) -> None:
    plate.write_image("B/3", 0, pixels())
    root = _root(plate)
    (root.parent / "x.csv").write_text("a\n1\n")
    before = _tree(root.parent)
    data: Any = pixels() if inner.endswith("0") else {"a": 1}
    for act in (
        lambda: ps.load(f"{plate.uri}/{inner}"),
        lambda: ps.save(data, f"{plate.uri}/{inner}", overwrite=True),
        lambda: ps.delete(f"{plate.uri}/{inner}"),
        lambda: ps.copy(f"{plate.uri}/B/3/0", f"{plate.uri}/{inner}"),
        lambda: ps.get_backend("zarr").ensure_directory(f"{plate.uri}/{inner}"),
        lambda: ps.get_backend("zarr").touch(f"{plate.uri}/{inner}"),
        lambda: plate.write_table(inner, [{"a": 1}]),
        lambda: plate.read_table(inner),
        lambda: ps.exists(f"{plate.uri}/{inner}"),
    ):
        with pytest.raises((URIError, FileNotFoundError)):
            act()
    assert _tree(root.parent) == before


@pytest.mark.parametrize("name", ["..", "../B", ".", "", "B/3", "B 3", "Å"])
def test_no_name_leads_out_of_the_plate(plate: Plate, pixels: Pixels, name: str) -> None:
    plate.write_image("B/3", 0, pixels())
    before = _tree(_root(plate).parent)
    mask = pixels((2, 1, 3, 45, 67), "int32")
    for act in (
        lambda: plate.write_image(f"{name}/3", 0, pixels()),
        lambda: plate.write_image(f"B/{name}", 0, pixels()),
        lambda: plate.write_image("B/3", name, pixels(), overwrite=True),
        lambda: plate.write_label("B/3", 0, name, mask) if name != "B 3" else plate[name],
        lambda: plate[f"{name}/3"].image(0),
        lambda: plate["B/3"].image(name),
        lambda: plate["B/3"].image(0).label(name),
    ):
        with pytest.raises((URIError, FileNotFoundError)):
            act()
    assert _tree(_root(plate).parent) == before


def _edited(plate: Plate, inner: str, edit: Callable[[dict[str, Any]], None]) -> None:
    group = _root(plate) / inner
    document = next(p for p in (group / "zarr.json", group / ".zattrs") if p.exists())
    content = json.loads(document.read_text())
    edit(content["attributes"]["ome"] if document.name == "zarr.json" else content)
    document.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("inner", "edit"),
    [
        ("", lambda ome: ome["plate"]["rows"].__setitem__(0, {"name": ".."})),
        ("", lambda ome: ome["plate"]["wells"][0].update(path="../q.zarr")),
        ("B/3", lambda ome: ome["well"]["images"][0].update(path="../../../q.zarr/B/3/0")),
        ("B/3/0", lambda ome: ome["multiscales"][0]["datasets"][0].update(path="../../../../q/0")),
        ("B/3/0/labels", lambda ome: ome.update(labels=["../../../../../q.zarr/B/3/0"])),
    ],
    ids=["row", "well", "field", "array", "label"],
)
def test_a_plate_whose_metadata_leads_out_of_it_is_refused(
    plate: Plate, pixels: Pixels, inner: str, edit: Callable[[dict[str, Any]], None]
) -> None:
    mask = pixels((2, 1, 3, 45, 67), "int32")
    plate.write_well("B/3", {0: pixels()}, {0: {"nuclei": mask}})
    shutil.copytree(_root(plate), _root(plate).parent / "q.zarr")
    _edited(plate, inner, edit)
    with pytest.raises((CorruptMetadataError, URIError), match=r"p\.zarr"):
        _read_all(plate.uri)


def _read_all(uri: str) -> None:
    well = ps.open_plate(uri)["B/3"]
    image = well.image(well.fields[0])
    image.read()
    image.label(image.labels[0])


def _lose(group: Path) -> None:
    for name in ("zarr.json", ".zattrs", ".zgroup"):
        (group / name).unlink(missing_ok=True)


def _mended(plate: Plate, *rules: str) -> None:
    backend = ps.get_backend("zarr")
    assert [f.rule for f in backend.check_plate(plate.uri)] == list(rules)
    assert [f.rule for f in backend.check_plate(plate.uri, repair=True)] == list(rules)
    assert backend.check_plate(plate.uri) == []


def test_a_plate_whose_json_was_deleted_is_made_again(plate: Plate, pixels: Pixels) -> None:
    """With its whole grid, channels and pixel size, of which each row keeps a copy."""
    mask = pixels((2, 1, 3, 45, 67), "int32")
    plate.write_well("B/3", {0: pixels(), 1: pixels()}, {0: {"nuclei": mask}})
    plate.write_image("C/4", 0, pixels(seed=1))
    plate.write_table("tables/a.csv", [{"n": 1}])
    spec = plate.spec
    _lose(_root(plate))
    with pytest.raises(FileNotFoundError, match=r"p\.zarr is no OME-Zarr plate"):
        ps.open_plate(plate.uri)
    with pytest.raises(AlreadyExistsError, match=r"p\.zarr exists and is no plate"):
        ps.create_plate(plate.uri)
    _mended(plate, "plate-json")
    again = ps.open_plate(plate.uri, "r+")
    assert again.spec == spec
    assert again.wells == ("B/3", "C/4")
    assert again["B/3"].fields == ("0", "1")
    np.testing.assert_array_equal(again["C/4"].image(0).read(), pixels(seed=1))
    np.testing.assert_array_equal(again["B/3"].image(0).label("nuclei").read(), mask)
    assert again.read_table("tables/a.csv").to_dict("list") == {"n": [1]}
    again.write_image("H/12", 0, pixels())


def test_the_json_of_a_plate_that_others_wrote_is_made_from_its_wells(
    plate: Plate, pixels: Pixels
) -> None:
    """They keep no copy, so the grid is the smallest that holds the wells."""
    plate.write_image("C/10", 0, pixels())
    (_root(plate) / "C/10").rename(_root(plate) / "C/01")
    for group in (_root(plate), _root(plate) / "C"):
        _lose(group)
    backend = ps.get_backend("zarr")
    assert [f.rule for f in backend.check_plate(plate.uri, repair=True)] == ["plate-json"]
    assert backend.check_plate(plate.uri) == []
    again = ps.open_plate(plate.uri)
    assert again.wells == ("C/01",)
    assert again.columns == ("01", "02", "03", "04")
    assert again.channels == ("DAPI", "GFP")
    assert again.pixel_size == (2.0, 0.65, 0.65)


def test_lost_json_of_rows_and_wells_is_made_again(plate: Plate, pixels: Pixels) -> None:
    plate.write_well("B/3", {0: pixels(), 1: pixels(seed=1)})
    _lose(_root(plate) / "B")
    _mended(plate, "row-json")
    _lose(_root(plate) / "B/3")
    _mended(plate, "well-json")
    assert zarr.open_group(_root(plate), mode="r")["B/3/1/0"].shape == pixels().shape
    np.testing.assert_array_equal(plate["B/3"].image(1).read(), pixels(seed=1))


@pytest.mark.parametrize("inner", ["B/3", "B/3/0", "B/3/0/1"])
def test_json_that_does_not_parse_is_found_and_left(
    plate: Plate, pixels: Pixels, inner: str
) -> None:
    plate.write_image("B/3", 0, pixels())
    plate.write_image("C/4", 0, pixels())
    group = _root(plate) / inner
    names = ("zarr.json", ".zarray", ".zattrs")
    document = next(group / n for n in names if (group / n).exists())
    document.write_text("{")
    backend = ps.get_backend("zarr")
    rule = "well-json" if inner == "B/3" else "image"
    assert [(f.rule, f.repairable) for f in backend.check_plate(plate.uri)] == [(rule, False)]
    assert backend.check_plate(plate.uri, repair=True) == []
    assert document.read_text() == "{"
    np.testing.assert_array_equal(plate["C/4"].image(0).read(), pixels())
    assert plate.wells == ("B/3", "C/4")


@pytest.fixture
def closed_plate() -> Iterator[Plate]:
    """A plate with something to mend that this process may only read, also as root."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        plate = ps.create_plate(folder / "p.zarr")
        plate.write_well("A/1", {0: np.ones((4, 4), "u2")}, {0: {"n": np.ones((4, 4), "u2")}})
        plate.write_table("tables/a.json", {"a": 1})
        _lose(_root(plate) / "A")
        ps.get_backend("zarr").check_plate(plate.uri)  # now all that is needed is imported
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555)
        was = os.geteuid()
        os.seteuid(65534 if was == 0 else was)
        yield plate
        os.seteuid(was)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)


def test_a_read_only_plate_is_read_and_checked_and_never_changed(closed_plate: Plate) -> None:
    uri, backend = closed_plate.uri, ps.get_backend("zarr")
    assert ps.load(f"{uri}/A/01/0?t=0&c=0&z=0").tolist() == [[1] * 4] * 4
    assert ps.load(f"{uri}/A/1/0/labels/n").max() == 1
    assert [f.rule for f in backend.check_plate(uri)] == ["row-json"]
    before = _tree(_root(closed_plate).parent)
    plane: Any = np.ones((4, 4), "u2")
    for act in (
        lambda: backend.check_plate(uri, repair=True),
        lambda: ps.save(plane, f"{uri}/A/1/0?t=0&c=0&z=0", overwrite=True),
        lambda: ps.save(plane, f"{uri}/A/1/0", overwrite=True),
        lambda: ps.save(plane, f"{uri}/A/3/0"),
        lambda: ps.save_batch([plane] * 2, [f"{uri}/A/3/0", f"{uri}/A/4/0"]),
        lambda: ps.save({"a": 1}, f"{uri}/tables/b.json"),
        lambda: ps.delete(f"{uri}/A/1/0"),
        lambda: ps.copy(f"{uri}/A/1", f"{uri}/A/3"),
    ):
        with pytest.raises(OSError, match=r"(?i)p\.zarr.*(permission|cannot be written)") as caught:
            act()
        assert isinstance(caught.value, PolystoreError)
        assert "\n" not in str(caught.value)
    assert _tree(_root(closed_plate).parent) == before


def test_float_labels_are_refused_and_nothing_is_written(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    before = _tree(_root(plate))
    with pytest.raises(MismatchError, match=r"labels/nuclei: labels are integers, not float32"):
        ps.save(pixels((2, 1, 3, 45, 67), "f4"), f"{plate.uri}/B/3/0/labels/nuclei")
    with pytest.raises(MismatchError, match=r"labels are integers, not float64"):
        plate.write_well("C/3", {0: pixels()}, {0: {"n": pixels((2, 1, 3, 45, 67), "f8")}})
    assert _tree(_root(plate)) == before


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_rows_after_z_hold_wells(tmp_path: Path, version: Any) -> None:
    plate = ps.create_plate(tmp_path / "p.zarr", 1536, ngff_version=version)
    wells = ("Z/48", "AA/1", "AF/48")
    for value, well in enumerate(reversed(wells), 1):
        plate.write_image(well, 0, np.full((4, 5), value, "u2"))
    again = ps.open_plate(plate.uri)
    assert again.wells == wells
    assert again["aa01"].path == "AA/1"
    assert ps.load(f"{plate.uri}/AF48_s001_w1.tif").max() == 1
    assert ps.load(f"{plate.uri}/AA/01/0?t=0&c=0&z=0").max() == 2
    with pytest.raises(AddressError, match="rows A to AF, columns 1 to 48"):
        plate.write_image("AG/1", 0, np.ones((4, 5), "u2"))
    assert ps.get_backend("zarr").check_plate(plate.uri) == []


@pytest.mark.parametrize(
    "name", ["p q.zarr", "Plätte #1 100% ü.zarr", "板 β.zarr", "'\"$(x).zarr",
             os.fsdecode(b"not utf-8 \xff.zarr")]
)  # fmt: skip
def test_odd_paths_are_taken_as_they_stand(tmp_path: Path, pixels: Pixels, name: str) -> None:
    root = tmp_path / "Ordner mit Leerzeichen" / name
    plate = ps.create_plate(root, channels=["DAPI", "GFP"])
    plate.write_image("B/3", 0, pixels())
    plate.write_image("B/3", 0, pixels(seed=1), overwrite=True)
    plate.write_label("B/3", 0, "my nuclei", pixels((2, 1, 3, 45, 67), "int32"))
    plate.write_table("tables/a b.csv", [{"ä": "ö"}])
    again = ps.open_plate(root)
    np.testing.assert_array_equal(again["B/3"].image(0).read(), pixels(seed=1))
    assert again["B/3"].image(0).labels == ("my nuclei",)
    assert again.read_table("tables/a b.csv").to_dict("records") == [{"ä": "ö"}]
    assert ps.get_backend("zarr").check_plate(root) == []
    assert {p.name for p in root.parent.iterdir() if p.suffix != ".lock"} == {name}


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_planes_of_zeros_come_back_for_us_and_for_others(
    plate: Plate, pixels: Pixels, dtype: str
) -> None:
    """They are not stored, so a field of zeros has no chunk at all."""
    array = pixels(dtype=dtype)
    array[1, 0, 1] = 0
    zeros = np.zeros_like(array)
    labels = np.zeros((2, 1, 3, 45, 67), "u4")
    plate.write_well("B/3", {0: array, 1: zeros}, {1: {"empty": labels}})
    for field, expected in (("0", array), ("1", zeros)):
        np.testing.assert_array_equal(plate["B/3"].image(field).read(), expected)
        theirs = zarr.open_array(_root(plate) / "B/3" / field / "0", mode="r")
        np.testing.assert_array_equal(theirs[...], expected)
    assert not plate["B/3"].image(0).plane(1, 0, 1).any()
    assert not plate["B/3"].image(1).label("empty").read().any()
    assert ps.get_backend("zarr").check_plate(plate.uri) == []


FORK = """
import os, sys
import numpy as np
import polystore_flows as ps
plate = ps.create_plate(sys.argv[1], channels=["a"], ngff_version=sys.argv[2], levels=1)
field = np.random.default_rng(0).integers(0, 4000, (1, 1, 3, 700, 700)).astype("u2")
plate.write_image("A/1", 0, field)
image = plate["A/1"].image(0)
assert (image.plane(z=1) == field[0, 0, 1]).all() and (image.read() == field).all()
children = []
for number in range(2, 6):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert (image.plane(z=2) == field[0, 0, 2]).all() and (image.read() == field).all()
            plate.write_image(f"A/{number}", 0, field + number)
            assert (plate[f"A/{number}"].image(0).read() == field + number).all()
            status = 0
        finally:
            os._exit(status)
    children.append(child)
plate.write_image("A/6", 0, field + 6)
assert (image.plane(z=0) == field[0, 0, 0]).all()
statuses = [os.waitpid(child, 0)[1] for child in children]
assert statuses == [0] * 4, statuses
again = ps.open_plate(sys.argv[1])
assert again.wells == plate.wells == tuple(f"A/{n}" for n in range(1, 7)), again.wells
for number in range(2, 7):
    assert (again[f"A/{number}"].image(0).read() == field + number).all()
assert ps.get_backend("zarr").check_plate(sys.argv[1]) == []
"""


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_forked_children_read_and_write_through_an_open_handle(
    tmp_path: Path, version: str
) -> None:
    """Threads and locks of the parent are not in the child."""
    command = [sys.executable, "-c", FORK, f"zarr://{tmp_path}/p.zarr", version]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
