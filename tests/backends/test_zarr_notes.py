"""What a plate says of its images besides pixels: acquisitions, windows, provenance, plate map."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import polystore_flows as ps
from polystore_flows.errors import MismatchError, UnsupportedError
from polystore_flows.hcs.plate import Plate
from polystore_flows.hcs.zarr_config import Version

Pixels = Callable[..., Any]


@pytest.fixture(params=["0.4", "0.5"])
def version(request: pytest.FixtureRequest) -> Version:
    return request.param


@pytest.fixture
def timed(tmp_path: Path, version: Version) -> Plate:
    """A plate with two acquisitions."""
    times = ["before", "after"]
    return ps.create_plate(
        f"zarr://{tmp_path}/t.zarr", acquisitions=times, ngff_version=version, levels=1
    )


def _attributes(path: Path) -> dict[str, Any]:
    attributes = zarr.open_group(path, mode="r").attrs.asdict()
    return attributes.get("ome", attributes) | {"polystore": attributes.get("polystore")}


def test_each_image_names_its_acquisition(timed: Plate, pixels: Pixels, tmp_path: Path) -> None:
    timed.write_image("B/3", 0, pixels(), acquisition="before")
    timed.write_image("B/3", 1, pixels(), acquisition=1)
    timed.write_well("B/4", {0: pixels(), 1: pixels()}, acquisition={0: 0, 1: "after"})
    again = ps.open_plate(timed.uri)
    assert again.acquisitions == (ps.Acquisition(0, "before"), ps.Acquisition(1, "after"))
    for well in ("B/3", "B/4"):
        assert again[well].acquisitions == {"0": 0, "1": 1}
        stored = _attributes(tmp_path / "t.zarr" / well)["well"]["images"]
        assert stored == [{"path": "0", "acquisition": 0}, {"path": "1", "acquisition": 1}]
    listed = _attributes(tmp_path / "t.zarr")["plate"]["acquisitions"]
    assert [(time["id"], time["name"]) for time in listed] == [(0, "before"), (1, "after")]


def test_the_plate_says_how_many_fields_of_a_well_an_acquisition_has_at_most(
    timed: Plate, pixels: Pixels, tmp_path: Path
) -> None:
    def said() -> list[int]:
        listed = _attributes(tmp_path / "t.zarr")["plate"]["acquisitions"]
        return [time["maximumfieldcount"] for time in listed]

    late = ps.open_plate(timed.uri, "r+")
    timed.write_well("B/4", {f: pixels() for f in range(3)}, acquisition={0: 0, 1: 1, 2: 1})
    assert said() == [1, 2]
    late.write_image("B/5", 0, pixels(), acquisition=0)
    late.write_image("B/5", 1, pixels(), acquisition=0)
    assert said() == [2, 2]
    timed.write_image("B/6", 0, pixels(), acquisition=0)
    assert said() == [2, 2]
    backend = ps.get_backend("zarr")
    assert backend.check_plate(timed.uri) == []
    ps.delete(f"{timed.uri}/B/5")
    assert [f.rule for f in backend.check_plate(timed.uri, repair=True)] == ["field-count"]
    assert said() == [1, 2]
    assert backend.check_plate(timed.uri) == []


def test_an_image_without_its_acquisition_is_refused_before_anything_is_written(
    timed: Plate, pixels: Pixels
) -> None:
    for wanted, message in (
        (
            None,
            r"/B/3/0: the plate's acquisitions are 0 \(before\), 1 \(after\); give acquisition=",
        ),
        (2, "acquisition 2 is not among them"),
        ("later", "acquisition 'later' is not among them"),
        (True, "acquisition True is not among them"),
    ):
        with pytest.raises(MismatchError, match=message):
            timed.write_image("B/3", 0, pixels(), acquisition=wanted)
    assert timed.wells == ()


def test_a_replaced_field_keeps_its_acquisition_unless_another_is_named(
    timed: Plate, pixels: Pixels
) -> None:
    timed.write_image("B/3", 0, pixels(), acquisition=1)
    ps.save(pixels(seed=1), f"{timed.uri}/B/3/0", overwrite=True)
    assert timed["B/3"].acquisitions == {"0": 1}
    timed.write_well("B/3", {0: pixels(seed=2)}, overwrite=True)
    assert timed["B/3"].acquisitions == {"0": 1}
    timed.write_image("B/3", 0, pixels(), acquisition=0, overwrite=True)
    assert timed["B/3"].acquisitions == {"0": 0}


def test_acquisitions_outlive_the_last_well_and_are_those_of_a_plate_like_it(
    timed: Plate, pixels: Pixels, tmp_path: Path
) -> None:
    timed.write_image("B/3", 0, pixels(), acquisition=1)
    ps.delete(f"{timed.uri}/B/3")
    assert ps.open_plate(timed.uri).acquisitions == timed.acquisitions
    assert ps.create_plate(tmp_path / "l.zarr", like=timed).acquisitions == timed.acquisitions
    with pytest.raises(MismatchError, match="exists with acquisitions"):
        ps.create_plate(timed.uri, acquisitions=["other"], exist_ok=True)


def test_the_only_acquisition_need_not_be_named(tmp_path: Path, pixels: Pixels) -> None:
    times = [ps.Acquisition(7, "day 7")]
    plate = ps.create_plate(tmp_path / "p.zarr", acquisitions=times)
    plate.write_image("A/1", 0, pixels())
    assert plate["A/1"].acquisitions == {"0": 7}


@pytest.mark.parametrize(
    "wrong", [["a", "a"], [ps.Acquisition(1), ps.Acquisition(1)], [ps.Acquisition(-1)]]
)
def test_acquisitions_that_cannot_be_told_apart_are_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(MismatchError, match="acquisition"):
        ps.create_plate(tmp_path / "p.zarr", acquisitions=wrong)


def test_a_folder_of_tiffs_knows_no_acquisitions(tmp_path: Path, pixels: Pixels) -> None:
    plate = ps.create_plate(f"disk:{tmp_path}/p", channels=["a", "b"])
    with pytest.raises(UnsupportedError, match="only OME-Zarr plates keep acquisitions"):
        plate.write_image("A/1", 0, pixels(), acquisition=0)


def test_all_fields_of_a_plate_are_shown_as_its_first(tmp_path: Path, version: Version) -> None:
    """A window for each image alone would make a dim well look like a bright one."""
    plate = ps.create_plate(tmp_path / "p.zarr", channels=["a"], ngff_version=version)
    first = np.arange(10_000, dtype="uint16").reshape(1, 1, 1, 100, 100)
    first[..., 0, 0] = 60_000  # one hot pixel
    plate.write_image("A/1", 0, first)
    ps.open_plate(plate.uri, "r+").write_image("A/2", 0, first // 100)
    for well in ("A/1", "A/2"):
        channel = _attributes(tmp_path / "p.zarr" / well / "0")["omero"]["channels"][0]
        assert channel["window"] == {"min": 0, "max": 65535, "start": 11, "end": 9990}


def test_chosen_colours_and_windows_are_written(tmp_path: Path, pixels: Pixels) -> None:
    chosen = [ps.Channel("a", "123ABC", (5, 500)), "GFP"]
    plate = ps.create_plate(tmp_path / "p.zarr", channels=chosen)
    plate.write_image("A/1", 0, pixels())
    channels = _attributes(tmp_path / "p.zarr/A/1/0")["omero"]["channels"]
    assert [channel["color"] for channel in channels] == ["123ABC", "00FF00"]
    assert (channels[0]["window"]["start"], channels[0]["window"]["end"]) == (5, 500)
    assert ps.open_plate(plate.uri).channel_info[0] == chosen[0]


@pytest.mark.parametrize(
    "channel",
    [ps.Channel("a", "#FF0000"), ps.Channel("a", "red"), ps.Channel("a", "FF0000", (5, 5)),
     ps.Channel("a", "FF0000", (0, float("nan")))],
)  # fmt: skip
def test_colours_and_windows_that_no_reader_takes_are_refused(
    tmp_path: Path, channel: ps.Channel
) -> None:
    with pytest.raises(MismatchError, match="channel a is"):
        ps.create_plate(tmp_path / "p.zarr", channels=[channel])


@pytest.mark.parametrize(
    ("array", "window"),
    [
        (np.zeros((1, 1, 1, 8, 8), "uint8"), {"min": 0, "max": 255, "start": 0, "end": 1}),
        (
            np.full((1, 1, 1, 8, 8), np.nan, "float32"),
            {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0},
        ),
        (
            np.array([[0.5, np.inf], [0.5, 0.5]], "float32"),
            {"min": 0.5, "max": 0.5, "start": 0.5, "end": 1.5},
        ),
    ],
    ids=["zeros", "nothing finite", "flat"],
)
def test_an_image_without_contrast_has_a_window_too(
    tmp_path: Path, array: Any, window: dict[str, float]
) -> None:
    plate = ps.create_plate(tmp_path / "p.zarr")
    plate.write_image("A/1", 0, array)
    assert _attributes(tmp_path / "p.zarr/A/1/0")["omero"]["channels"][0]["window"] == window


def test_the_provenance_of_a_field_is_kept_with_it(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    assert plate["B/3"].provenance(0) is None
    made = ps.provenance(
        "blur", "1.0", parameters={"sigma": 2}, inputs=[f"{plate.uri}/B/3", ps.Input("lims:7")]
    )
    assert made.inputs[0].uri == f"{plate.uri}/B/3"
    assert made.inputs[0].bytes == ps.stat(f"{plate.uri}/B/3").size
    plate.write_image("B/4", 0, pixels(), provenance=made)
    plate.write_image("B/4", 1, pixels())
    again = ps.open_plate(plate.uri)
    assert again["B/4"].provenance(0) == made
    assert again["B/4"].provenance(1) is None
    assert ps.get_backend("zarr").check_plate(plate.uri) == []
    plate.write_well("B/4", {0: pixels()}, overwrite=True)
    assert again["B/4"].provenance(0) is None  # it was of the old field


def test_provenance_of_a_missing_input_is_refused(plate: Plate) -> None:
    with pytest.raises(FileNotFoundError):
        ps.provenance("blur", inputs=[f"{plate.uri}/B/3"])


@pytest.mark.parametrize("target", ["zarr:{}/copy.zarr", "disk:{}/copy"])
def test_copies_keep_acquisitions_and_provenance_where_there_is_a_place(
    timed: Plate, pixels: Pixels, tmp_path: Path, target: str
) -> None:
    made = ps.Provenance("blur")
    both = {0: pixels(), 1: pixels()}
    timed.write_well("B/4", both, acquisition={0: 0, 1: 1}, provenance={1: made})
    ps.copy(timed.uri, target.format(tmp_path))
    copied = ps.open_plate(target.format(tmp_path))["B/4"]
    assert copied.provenance(0) is None
    assert copied.provenance(1) == made
    expected = {"0": 0, "1": 1} if target.startswith("zarr") else {"0": None, "1": None}
    assert copied.acquisitions == expected
    if target.startswith("zarr"):
        ps.get_backend("zarr").copy(f"{timed.uri}/B/4/1", f"{timed.uri}/C/1/5")
        assert timed["C/1"].acquisitions == {"5": 1}
        assert timed["C/1"].provenance(5) == made


def test_provenance_that_cannot_be_read_says_where(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels(), provenance=ps.Provenance("blur"))
    root = Path(plate.uri.removeprefix("zarr://"))
    document = next(p for p in (root / "B/3/0").iterdir() if p.name in ("zarr.json", ".zattrs"))
    document.write_text(document.read_text().replace('"tool"', '"tol"'))
    with pytest.raises(ValueError, match=r"B/3/0: this is no provenance"):
        ps.open_plate(plate.uri)["B/3"].provenance(0)


@pytest.mark.parametrize("where", ["zarr:{}/p.zarr", "disk:{}/p", "memory://{}/p"])
def test_a_plate_map_is_a_table_of_the_plate_on_every_store(tmp_path: Path, where: str) -> None:
    uri = where.format(tmp_path.name if where.startswith("memory") else tmp_path)
    plate = ps.create_plate(uri)
    assert plate.conditions.empty
    table = [{"row": "B", "column": "03", "drug": "x", "dose": 0.5}, {"row": "A", "column": 1}]
    plate.write_conditions(table)
    stored = ps.open_plate(uri).conditions
    assert list(stored.index) == ["A/1", "B/3"]
    assert stored.loc["B/3", ["drug", "dose"]].tolist() == ["x", 0.5]
    plain = ps.load(f"{uri}/tables/conditions.csv")
    assert list(plain.columns) == ["row", "column", "drug", "dose"]
    with pytest.raises(MismatchError, match=r"/conditions.csv: well I/1 is not on this"):
        plate.write_conditions([{"row": "I", "column": 1}])
    with pytest.raises(FileExistsError):
        plate.write_conditions(table, overwrite=False)
    assert list(plate.conditions.index) == ["A/1", "B/3"]


def test_a_plate_map_that_does_not_fit_is_noticed_when_it_is_read(plate: Plate) -> None:
    """Somebody may have put the file there by hand."""
    ps.save([{"row": "Z", "column": 1}], f"{plate.uri}/tables/conditions.csv")
    with pytest.raises(MismatchError, match="well Z/1 is not on this plate"):
        plate.conditions  # noqa: B018


def test_info_shows_acquisitions_and_provenance(
    timed: Plate, pixels: Pixels, capsys: pytest.CaptureFixture[str]
) -> None:
    from polystore_flows.cli import main

    made = ps.Provenance("blur", "1.0", {"sigma": 2}, (ps.Input("zarr:raw.zarr/B/3?token=x"),))
    timed.write_image("B/3", 0, pixels(), acquisition=0, provenance=made)

    def shown(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["info", *words])
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert json.loads(shown(timed.uri, "--json"))["acquisitions"] == ["before", "after"]
    for part in ("/B/3", "/B/3/0"):
        facts = json.loads(shown(timed.uri + part, "--json"))
        assert facts["provenance"] == made.as_json()
    assert "tool: blur; version: 1.0; parameters: sigma: 2; inputs: uri: zarr:raw" in shown(
        f"{timed.uri}/B/3"
    )
