"""The plugin's documentation: its Snakefiles run, and it says all that there is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from snakemake_storage_plugin_polystore import StorageProvider, StorageProviderSettings
from snakemake_storage_plugin_polystore.query import refusal

import polystore_flows as ps

DOCS = Path(__file__).parents[2] / "snakemake_storage_plugin" / "docs"
TEXT = (DOCS / "further.md").read_text()
BLOCKS = re.findall(r"```python\n# (\S+)\n(.*?)```", TEXT, re.DOTALL)
SNAKEFILES = [text for name, text in BLOCKS if name == "Snakefile"]
SCRIPTS = {name: text for name, text in BLOCKS if name != "Snakefile"}


def make_raw(folder):
    folder.mkdir()
    for number, well in enumerate(("B02", "B03", "C02")):
        plane = np.full((8, 8), 100 * number, "uint16")
        plane[0, 0] = 1000
        tifffile.imwrite(folder / f"{well}_s1_w1.tif", plane)


def test_every_block_is_known_to_these_tests():
    assert TEXT.count("```python") == len(BLOCKS)
    assert len(SNAKEFILES) == 3


def test_every_query_in_the_text_is_understood():
    queries = re.findall(r"`((?:disk|zarr|zarr\+s3|s3|omero):[^`…]+)`", TEXT)
    assert len(queries) >= 6
    for query in queries:
        assert refusal(query, named=True) is None, query


def test_settings_that_the_text_names_are_there():
    fields = {name for name in StorageProviderSettings.__dataclass_fields__ if name[0] != "_"}
    for name in fields - {"max_requests_per_second"}:
        assert f"`{name}" in TEXT, name


def test_the_introduction_is_short_and_names_the_plates_home():
    text = (DOCS / "intro.md").read_text()
    assert "#" not in text
    assert "Polystore Flows" in text
    assert len(StorageProvider.example_queries()) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2], ids=["by reference", "in batches"])
def test_the_snakefiles_run(workflow, number):
    make_raw(workflow.folder / "raw")
    for name, text in SCRIPTS.items():
        (workflow.folder / name).write_text(text)
    workflow.write(SNAKEFILES[number])
    workflow.run()
    plate = ps.open_plate(f"zarr://{workflow.folder}/plate.zarr")
    assert plate.wells == ("B/2", "B/3", "C/2")
    assert int(plate["C/2"].image(0).read().max()) == 800
    if number == 0:
        table = plate.read_table("tables/brightness.csv")
        assert table["mean"].round().tolist() == [984.0, 886.0, 788.0]
    assert "Nothing to be done" in workflow.run()


@pytest.mark.slow
def test_the_snakefile_of_objects_runs(workflow, bucket):
    ps.save("notes", f"{bucket}/raw/notes.txt")
    workflow.write(SNAKEFILES[1].replace("s3://bucket", bucket))
    workflow.run()
    assert ps.load(f"{bucket}/results/summary.html") == b"notes"
    assert "Nothing to be done" in workflow.run()
