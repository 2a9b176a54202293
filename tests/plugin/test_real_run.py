"""Real runs of Snakemake, on two cores, with jobs in processes of their own."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from plugin_rig import make_plate, tree

import polystore_flows as ps

pytestmark = pytest.mark.slow


FILES = """
storage:
    provider="polystore"

rule all:
    input: expand("{name}.upper", name=["a", "b"])

rule upper:
    input: storage("disk://HERE/raw/{name}.txt")
    output: storage("disk:results/{name}.txt")
    shell: "tr a-z A-Z < {input} > {output}"

rule local:
    input: storage("disk:results/{name}.txt")
    output: "{name}.upper"
    shell: "cp {input} {output}"
"""


def test_files_are_retrieved_and_stored_and_only_a_touched_one_is_made_again(workflow):
    raw = workflow.folder / "raw"
    raw.mkdir()
    for name in "ab":
        (raw / f"{name}.txt").write_text(name)
    workflow.write(FILES)
    first = workflow.run()
    assert "Retrieving from storage: disk://" in first
    assert (workflow.folder / "results/a.txt").read_text() == "A"
    assert (workflow.folder / "b.upper").read_text() == "B"
    assert tree(raw) == {"a.txt": b"a", "b.txt": b"b"}
    assert "Nothing to be done" in workflow.run()
    assert not list((workflow.folder / ".snakemake/storage").rglob("*.txt"))

    later = time.time() + 5
    os.utime(raw / "a.txt", (later, later))
    again = workflow.run("--dry-run", "--quiet", "host")
    assert "name=a" in again
    assert "name=b" not in again


WELLS = """
WELLS = ["B/3", "B/4", "C/3", "C/4"]

rule all:
    input: storage(expand("zarr:out.zarr/{well}", well=WELLS)), "table.txt"

rule double:
    input: storage("zarr:in.zarr/{well}")
    output: storage("zarr:out.zarr/{well,[A-H]/[0-9]+}")
    shell: "PYTHON double.py {input} {output}"

rule count:
    input: storage(expand("zarr:out.zarr/{well}", well=WELLS))
    output: storage("zarr:out.zarr/tables/counts.csv")
    script: "count.py"

rule table:
    input: storage("zarr:out.zarr/tables/counts.csv")
    output: "table.txt"
    shell: "cp {input} {output}"
"""

DOUBLE = """
import sys
import polystore_flows as ps

source, target = sys.argv[1:]
plate, _, well = target.partition(".zarr/")
out = ps.create_plate(plate + ".zarr", channels=["DAPI"], exist_ok=True)
out.write_well(well, {f: image * 2 for f, image in ps.load(source).items()})
"""

COUNT = """
import polystore_flows as ps

with open(snakemake.output[0], "w") as file:
    print("well,mean", file=file)
    for uri in snakemake.input:
        print(uri, ps.load(uri)["0"].mean(), sep=",", file=file)
"""


def test_jobs_read_and_write_wells_of_one_plate_by_reference_side_by_side(workflow):
    make_plate(workflow.folder / "in.zarr", wells=["B/3", "B/4", "C/3", "C/4"])
    workflow.write(WELLS, double=DOUBLE, count=COUNT)
    before = tree(workflow.folder / "in.zarr")
    workflow.run()
    out = ps.open_plate(f"zarr://{workflow.folder}/out.zarr")
    assert out.wells == ("B/3", "B/4", "C/3", "C/4")
    assert [int(out[well].image(0).read().max()) for well in out.wells] == [0, 2, 4, 6]
    assert "zarr:out.zarr/C/4,6.0" in (workflow.folder / "table.txt").read_text()
    assert tree(workflow.folder / "in.zarr") == before
    assert "Nothing to be done" in workflow.run()

    label = np.ones((8, 8), "uint16")
    ps.open_plate(f"zarr://{workflow.folder}/in.zarr", "r+").write_label("B/3", 0, "nuclei", label)
    assert "Nothing to be done" in workflow.run()

    image = np.full((1, 1, 1, 8, 8), 50, "uint16")
    source = ps.open_plate(f"zarr://{workflow.folder}/in.zarr", "r+")
    source.write_image("B/4", 0, image, overwrite=True)
    again = workflow.run("--dry-run")
    assert "well=B/4" in again
    assert "well=B/3" not in again
    workflow.run()
    assert int(out["B/4"].image(0).read().max()) == 100
    assert out.wells == ("B/3", "B/4", "C/3", "C/4")


COPIES = """
storage:
    provider="polystore",
    mode="MODE"

rule all:
    input: storage(expand("zarr:out.zarr/{well}/0", well=["B/03", "C/3"])), "plate.txt"

rule copy:
    input: storage("zarr:in.zarr/{well}/0")
    output: storage(directory("zarr:out.zarr/{well}/0"))
    shell: "cp -r {input} {output}"

rule plate:
    input: storage("zarr:in.zarr"), storage("zarr:in.zarr/B/03"), storage("disk:in.zarr")
    output: "plate.txt"
    shell: "find -L {input} -name '*.json' | wc -l > {output}"
"""


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_a_plate_and_a_well_and_field_inside_it_are_retrieved_at_once(workflow, mode):
    """The lethal case in a real run: another plugin removes the source's well."""
    make_plate(workflow.folder / "in.zarr", wells=["B/3", "C/3"])
    ps.create_plate(f"zarr://{workflow.folder}/out.zarr", channels=["DAPI"])
    before = tree(workflow.folder / "in.zarr")
    workflow.write(COPIES.replace("MODE", mode))
    workflow.run()
    out = ps.open_plate(f"zarr://{workflow.folder}/out.zarr")
    assert out.wells == ("B/3", "C/3")
    assert int(out["C/3"].image(0).read().max()) == 1
    assert tree(workflow.folder / "in.zarr") == before
    assert "Nothing to be done" in workflow.run()
    workflow.run("--forceall")
    assert tree(workflow.folder / "in.zarr") == before
    assert not list((workflow.folder / ".snakemake/storage").rglob("*.json"))


def test_jobs_run_inside_snakemake_and_spawned_jobs_find_the_plugin(workflow):
    """``run:`` jobs are Snakemake processes of their own that store outputs themselves."""
    make_plate(workflow.folder / "in.zarr", wells=["B/3"])
    workflow.write("""
rule all:
    input: storage("disk:out.txt")

rule mean:
    input: storage("zarr:in.zarr/B/3/0")
    output: storage("disk:out.txt")
    run:
        import polystore_flows as ps
        with open(output[0], "w") as file:
            file.write(str(ps.load(input[0]).mean()))
""")
    workflow.run()
    assert (workflow.folder / "out.txt").read_text() == "0.0"


def test_it_is_a_default_storage_with_logs_and_a_mode_by_option(workflow):
    workflow.write("""
rule copy:
    input: "raw.txt"
    output: "out.txt"
    log: "logs/copy.log"
    shell: "test ! -L {input}; cp {input} {output} 2> {log}"
""")
    (workflow.folder / "store").mkdir()
    (workflow.folder / "store/raw.txt").write_text("raw")
    options = ["--default-storage-provider", "polystore", "--storage-polystore-mode", "copy"]
    options += ["--default-storage-prefix", f"disk://{workflow.folder}/store"]
    workflow.run(*options)
    assert sorted(tree(workflow.folder / "store")) == ["logs/copy.log", "out.txt", "raw.txt"]
    assert "Nothing to be done" in workflow.run(*options)


def test_wildcards_are_globbed_in_a_plate(workflow):
    make_plate(workflow.folder / "in.zarr", wells=["B/3", "C/3"])
    workflow.write("""
WELLS = glob_wildcards(storage("zarr:in.zarr/{well}")).well

rule all:
    input: storage(expand("zarr:in.zarr/{well}/0", well=WELLS))
    output: "wells.txt"
    shell: "echo {input} > {output}"
""")
    workflow.run()
    assert (workflow.folder / "wells.txt").read_text() == "zarr:in.zarr/B/3/0 zarr:in.zarr/C/3/0\n"
