"""The page is whole, safe, small, and right about what it shows."""

import html
import json
import re
import sys
from itertools import product

import numpy as np
import pytest
from report_plates import EVIL, picture

import polystore_flows as ps
from polystore_flows.errors import (
    AlreadyExistsError,
    MissingDependencyError,
    NotFoundError,
    UnsupportedError,
)
from polystore_flows.report import page, write_report


@pytest.fixture
def report(tmp_path):
    """Write the page of a plate; its HTML and the data in it."""

    def call(plate, **options):
        file = tmp_path / "report.html"
        write_report(plate.uri, file, overwrite=True, **options)
        text = file.read_text()
        parts = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', text, re.S)
        return text, {name: json.loads(part) for name, part in parts}

    return call


def column(parts, title):
    """The values of a column of the page by well."""
    data = parts["data"]
    (found,) = [c for c in data["columns"] if c["title"] == title]
    return dict(zip((w["path"] for w in data["wells"]), found["values"], strict=True))


def test_values_of_tables_and_images_are_in_the_page(tmp_path, make_plate, report):
    _, parts = report(make_plate(tmp_path))
    assert column(parts, "nuclei") == {"A/1": 10, "A/2": 11, "B/1": 12}
    assert column(parts, "DAPI mean")["A/1"] == pytest.approx(picture(0, 2)[0, 0].mean(), rel=1e-4)
    data = parts["data"]
    assert data["columns"][data["start"]]["title"] == "nuclei"
    assert [(w["path"], w["place"], w["state"]) for w in data["wells"]] == [
        ("A/1", 0, "ok"),
        ("A/2", 1, "ok"),
        ("B/1", 3, "ok"),
    ]
    assert len(parts["pictures"]["sheets"]) == 2
    assert list(parts["pictures"]["fields"]["A/1"][0]["outlines"]) == ["nuclei"]


def test_nothing_that_a_plate_says_becomes_markup_or_is_fetched(tmp_path, make_plate, report):
    """Names, texts, table columns and errors; the browser test shows that none of it runs."""
    rows = [{"well": "A/1", EVIL: 1, "text": EVIL}]
    plate = make_plate(tmp_path, name=EVIL, channels=(EVIL, "b"), tables={"tables/t.csv": rows})
    text, parts = report(plate)
    assert "<script>alert" not in text
    assert len(re.findall(r"<script", text)) == 4  # two of data, two of code
    assert column(parts, "text")["A/1"] == EVIL
    page_itself = text.split("<script>")[0]
    assert re.findall(r'(?:src|href)="?([^">]*)', page_itself) == ["data:,"]
    assert "default-src 'none'" in page_itself
    assert "unsafe-eval" not in text
    assert "script-src 'sha256-" in html.unescape(page_itself)


def test_controls_are_compared_where_a_plate_map_names_them(tmp_path, make_plate, report):
    wells = ("A/1", "A/2", "A/3", "B/1", "B/2", "B/3")
    conditions = [
        {"well": w, "control": "pos" if w[0] == "A" else "neg" if w != "B/3" else ""} for w in wells
    ]
    counts = [{"well": w, "n": n} for w, n in zip(wells, (10, 12, 14, 1, 3, 99), strict=True)]
    tables = {"tables/plate_map.csv": conditions, "tables/counts.csv": counts}
    text, parts = report(make_plate(tmp_path, wells, tables=tables))
    data = parts["data"]
    place = str([c["title"] for c in data["columns"]].index("n"))
    found = data["controls"][place]
    assert found["z_prime"] == pytest.approx(1 - 3 * (2 + 2**0.5) / 10)
    assert (found["positive"]["n"], found["negative"]["n"]) == (3, 2)
    assert "doi:10.1177/108705719900400206" in text
    assert data["roles"] == ["positive"] * 3 + ["negative"] * 2 + [None]


def test_without_controls_nothing_is_said_of_them(tmp_path, make_plate, report):
    text, parts = report(make_plate(tmp_path))
    assert parts["data"]["controls"] == {}
    assert "Z′" not in text.split("<script")[0]


def test_missing_and_failed_wells_are_listed(tmp_path, make_plate, report):
    rows = [{"well": w, "n": 1} for w in ("A/1", "A/3")]
    plate = make_plate(tmp_path, tables={"tables/t.csv": rows}, fields=2)
    (plate.root / "A" / "2" / "zarr.json").unlink()
    (plate.root / "B" / "1" / "1" / "zarr.json").unlink()
    text, parts = report(plate)
    states = {well["path"]: well["state"] for well in parts["data"]["wells"]}
    assert states == {"A/1": "ok", "A/2": "failed", "B/1": "partial", "A/3": "missing"}
    listed = text.split('id="problems-title"')[1].split("</section>")[0]
    assert "A/2" in listed
    assert "B/1/1" in listed
    assert "without images: A/3" in listed


def test_a_plate_with_no_wells_has_a_page(tmp_path, report):
    plate = ps.create_plate(f"zarr:{tmp_path}/p.zarr", 96)
    text, parts = report(plate)
    assert parts["data"]["wells"] == []
    assert text.count("<button") > 96


@pytest.mark.parametrize("layout", [6, 12, 24, 48, 96, 384, 1536])
def test_every_layout_has_its_grid(tmp_path, make_plate, report, layout):
    plate = make_plate(tmp_path, ("A/1",), layout=layout)
    text, _ = report(plate)
    assert text.count('tabindex="-1" data-state="empty"') == layout


def test_a_plate_that_changes_while_it_is_read_is_said(tmp_path, make_plate, report):
    plate = make_plate(tmp_path)

    def change(done, total, well):
        if done == 1:
            plate.write_well("B/3", {0: picture(9, 2)})

    text, parts = report(plate, progress=change)
    assert len(parts["data"]["wells"]) == 3
    assert "plate changed while it was read" in text


def test_a_well_that_vanishes_while_the_plate_is_read_is_told_of(tmp_path, make_plate, report):
    plate = make_plate(tmp_path)

    def change(done, total, well):
        if done == 1:
            ps.delete(f"{plate.uri}/B/1")

    text, parts = report(plate, workers=1, progress=change)
    # How much of the well there was depends on how far its reader had come.
    states = {well["path"]: well["state"] for well in parts["data"]["wells"]}
    assert states.pop("B/1") in ("failed", "partial", "ok")
    assert set(states.values()) == {"ok"}
    assert "plate changed while it was read" in text


def test_a_folder_of_images_has_the_same_page(tmp_path, make_plate, report):
    plate = make_plate(tmp_path)
    _, here = report(plate)
    ps.copy(plate.uri, f"disk:{tmp_path}/folder")
    _, there = report(ps.open_plate(f"disk:{tmp_path}/folder"))
    assert here["data"]["columns"] == there["data"]["columns"]
    assert here["pictures"] == there["pictures"]


def test_the_file_is_not_overwritten_unless_told_to(tmp_path, make_plate):
    plate, file = make_plate(tmp_path), tmp_path / "r.html"
    file.write_text("mine")
    read = []
    with pytest.raises(AlreadyExistsError, match="--overwrite"):
        write_report(plate.uri, file, progress=lambda *said: read.append(said))
    assert (file.read_text(), read) == ("mine", [])
    result = write_report(plate.uri, file, overwrite=True)
    assert result.size == file.stat().st_size
    assert (result.wells, result.problems) == (3, ())


def test_the_page_can_be_written_to_any_backend_of_files(tmp_path, make_plate):
    plate = make_plate(tmp_path)
    write_report(plate.uri, "memory://pages/r.html")
    assert ps.exists("memory://pages/r.html")
    ps.delete("memory://pages/r.html")
    with pytest.raises(UnsupportedError, match=r"name a file"):
        write_report(plate.uri, f"{plate.uri}/r.html")


def test_a_missing_plate_or_package_is_one_line(tmp_path, make_plate, monkeypatch):
    with pytest.raises(NotFoundError):
        write_report(f"zarr:{tmp_path}/no.zarr", tmp_path / "r.html")

    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"'jinja2'.*polystore-flows\[report\]"):
        write_report(make_plate(tmp_path).uri, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.slow
def test_a_plate_of_384_wells_stays_small(tmp_path, report):
    """Noise is the worst that an encoder can meet; the page makes its pictures smaller."""
    plate = ps.create_plate(f"zarr:{tmp_path}/p.zarr", 384, ["DAPI", "GFP"])
    image = np.random.default_rng(0).integers(0, 65535, (1, 2, 1, 256, 256), np.uint16)
    for row, column in product(plate.rows, plate.columns):
        plate.write_well(f"{row}/{column}", {0: image})
    text, _ = report(plate)
    assert len(text) < 10_000_000


@pytest.mark.parametrize("name", ["report.html.j2", "style.css", "main.js"])
def test_the_parts_of_the_page_are_in_the_package(name):
    assert page._asset(name)


def test_a_plate_in_a_store_has_the_same_page(tmp_path, make_plate, report):
    """Tables are listed and read through the store's own backend."""
    plate = make_plate(tmp_path)
    _, here = report(plate)
    ps.copy(plate.uri, "zarr+memory://report/p.zarr")
    _, there = report(ps.open_plate("zarr+memory://report/p.zarr"))
    assert here["data"]["columns"] == there["data"]["columns"]
    assert here["pictures"] == there["pictures"]


def test_the_page_tells_what_made_the_wells(tmp_path, make_plate, report):
    plate = make_plate(tmp_path, ())
    made = ps.Provenance("segment", "1.2", {"sigma": 2}, (ps.Input("disk:raw?token=hunter2"),))
    for well in ("A/1", "A/2"):
        plate.write_well(well, {0: picture(0, 2)}, provenance=made)
    text, parts = report(plate)
    assert "segment 1.2" in text
    assert "2 wells: A/1, A/2" in text
    assert ["parameters.sigma", "2"] in parts["data"]["wells"][0]["origin"]
    assert "hunter2" not in text
