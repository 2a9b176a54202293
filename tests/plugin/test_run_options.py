"""Snakemake's own ways with files, over the plugin: temp, ancient, checkpoints, options."""

from __future__ import annotations

import os
import time

import pytest
from plugin_rig import make_plate, tree

import polystore_flows as ps

pytestmark = pytest.mark.slow


FLAGS = """
storage:
    provider="polystore"

storage copies:
    provider="polystore",
    mode="copy"

rule all:
    input: storage("disk:HERE/store/a.end")

rule middle:
    input: ancient(storage.copies("disk:HERE/raw/a.txt"))
    output: storage(temp("disk:HERE/store/a.middle")), storage(temp(directory("disk:HERE/store/d")))
    shell: "test ! -L {input}; mkdir -p {output[1]}; cat {input} | tee {output[0]} > {output[1]}/x"

rule end:
    input: storage("disk:HERE/store/a.middle"), storage("disk:HERE/store/d")
    output: storage("disk:HERE/store/a.end")
    shell: "test -L {input[0]} || test -f {input[0]}; cat {input[0]} {input[1]}/x > {output}"
"""


def test_temporary_ancient_and_tagged_files(workflow):
    raw = workflow.folder / "raw"
    raw.mkdir()
    (raw / "a.txt").write_text("a")
    workflow.write(FLAGS.replace("disk:HERE", f"disk://{workflow.folder}"))
    workflow.run()
    assert tree(workflow.folder / "store") == {"a.end": b"aa"}
    os.utime(raw / "a.txt")
    assert "Nothing to be done" in workflow.run()
    again = workflow.run("--forcerun", "middle")
    assert "3 of 3 steps" in again
    assert tree(workflow.folder / "store") == {"a.end": b"aa"}
    assert tree(raw) == {"a.txt": b"a"}


CHAIN = """
rule all:
    input: storage("disk:HERE/store/b.txt"), storage("zarr:p.zarr/tables/t.csv")

rule one:
    input: storage("disk:HERE/raw/a.txt")
    output: storage("disk:HERE/store/a.txt")
    shell: "cp {input} {output}"

rule two:
    input: storage("disk:HERE/store/a.txt"), storage("zarr:p.zarr/B/3"), storage("zarr:p.zarr")
    output: storage("disk:HERE/store/b.txt"), storage("zarr:p.zarr/tables/t.csv")
    shell: "cp {input[0]} {output[0]}; echo {input[1]} {input[2]} > {output[1]}"
"""


def test_touched_kept_and_forced_outputs(workflow):
    make_plate(workflow.folder / "p.zarr", wells=["B/3"])
    (workflow.folder / "raw").mkdir()
    (workflow.folder / "raw/a.txt").write_text("a")
    workflow.write(CHAIN.replace("disk:HERE", f"disk://{workflow.folder}"))
    workflow.run("--keep-storage-local-copies")
    kept = [p for p in (workflow.folder / ".snakemake/storage").rglob("*") if p.is_file()]
    assert len(kept) == 4
    assert ps.load(f"zarr://{workflow.folder}/p.zarr/tables/t.csv").columns.tolist() == [
        "zarr:p.zarr/B/3 zarr:p.zarr"
    ]
    assert "Nothing to be done" in workflow.run()

    time.sleep(0.1)
    os.utime(workflow.folder / "raw/a.txt")
    assert "Nothing to be done" in workflow.run("--dry-run")  # its checksum is the same
    (workflow.folder / "raw/a.txt").write_text("b")
    assert "Updated input files" in workflow.run("--dry-run")
    content = tree(workflow.folder / "store")
    workflow.run("--touch")
    assert tree(workflow.folder / "store") == content
    assert "Nothing to be done" in workflow.run()
    workflow.run("--forceall")
    assert tree(workflow.folder / "store") == {"a.txt": b"b", "b.txt": b"b"}
    assert tree(workflow.folder / "raw") == {"a.txt": b"b"}


CHECKPOINT = """
from polystore_flows.snakemake import wells

rule all:
    input: "all.txt"

checkpoint make:
    output: storage("zarr:made.zarr")
    script: "make.py"

def counts(_):
    checkpoints.make.get()
    found = wells("zarr:made.zarr", group=1).values()
    return [storage(f"disk:counts/{well}.txt", retrieve=True) for well, in found]

rule count:
    input: storage("zarr:made.zarr/{row}/{column}")
    output: storage("disk:counts/{row}/{column}.txt")
    shell: "echo {input} > {output}"

rule collect:
    input: counts
    output: "all.txt"
    shell: "cat {input} > {output}"
"""

MAKE = """
import sys
sys.path.insert(0, "RIG")
from pathlib import Path
from plugin_rig import make_plate
import polystore_flows as ps

plate = snakemake.output[0]
ps.create_plate(plate, channels=["DAPI"])
for well in ("B/3", "C/4"):
    ps.open_plate(plate, "r+").write_image(well, 0, [[1, 2], [3, 4]])
"""


def test_a_checkpoint_decides_which_wells_there_are(workflow):
    workflow.write(CHECKPOINT, make=MAKE.replace("RIG", os.path.dirname(__file__)))  # noqa: PTH120
    workflow.run()
    text = (workflow.folder / "all.txt").read_text()
    assert text.split() == ["zarr:made.zarr/B/3", "zarr:made.zarr/C/4"]
    assert "Nothing to be done" in workflow.run()
    plate = f"zarr://{workflow.folder}/made.zarr"
    ps.open_plate(plate, "r+").write_label("B/3", 0, "nuclei", [[1, 1], [0, 0]])
    assert "Nothing to be done" in workflow.run()
