"""How often Snakemake has the stores asked, gated: times differ from machine to machine."""

from __future__ import annotations

import pytest
from counting import LISTINGS, SINGLE
from plugin_rig import make_hollow_plate

from polystore_flows.hcs.layout import SIZES, row_name


def all_wells(count):
    rows, columns = SIZES[count]
    return [f"{row_name(row)}/{column + 1}" for row in range(rows) for column in range(columns)]


def asked(counts, verbs, part=""):
    return {
        call: n for call, n in counts.items() if call.split(" ", 1)[0] in verbs and part in call
    }


DRY = """
import polystore_flows as ps

WELLS = [f"{row}/{column}" for row in ROWS for column in range(1, COLUMNS + 1)]

rule all:
    input: storage(expand("zarr:out.zarr/{well}", well=WELLS))

rule one:
    input: storage("zarr:in.zarr/{well}")
    output: storage("zarr:out.zarr/{well,[A-Z]+/[0-9]+}")
    shell: "false"
"""


@pytest.mark.parametrize("count", [96, 1536])
@pytest.mark.parametrize("done", [True, False], ids=["up to date", "to be done"])
def test_a_dry_run_costs_two_listings_and_no_call_for_a_well(workflow, count, done):
    wells = all_wells(count)
    make_hollow_plate(workflow.folder / "in.zarr", wells)
    if done:
        make_hollow_plate(workflow.folder / "out.zarr", wells)
    rows, columns = SIZES[count]
    names = [row_name(row) for row in range(rows)]
    workflow.write(DRY.replace("ROWS", f"{names}").replace("COLUMNS", f"{columns}"))
    output, counts = workflow.counted("--dry-run", "--quiet", "rules")
    assert ("Nothing to be done" in output) is done
    assert done or f"{count + 1}" in output
    assert sum(asked(counts, LISTINGS).values()) <= 2
    assert asked(counts, SINGLE) == {}


RUN = """
WELLS = [f"{row}/{column}" for row in "ABCDEFGH" for column in range(1, 13)]

rule all:
    input:
        storage(expand("zarr:in.zarr/{well}/tables/n.csv", well=WELLS), retrieve=False),
        storage(expand("disk:HERE/out/{well}.txt", well=WELLS))
    output: touch("done")

rule one:
    input: storage("zarr:in.zarr/{well}")
    output:
        table=storage("zarr:in.zarr/{well}/tables/n.csv", retrieve=False),
        text=storage("disk:HERE/out/{well}.txt")
    shell:
        "file=$(echo {output.table} | cut -d: -f2); mkdir -p $(dirname $file);"
        "echo n > $file; echo {input} > {output.text}"
"""


@pytest.mark.slow
def test_a_run_of_96_jobs_asks_at_most_ten_times_for_each_thing(workflow):
    """Snakemake asks for the inputs of all ready jobs whenever one ends: some N² times."""
    make_hollow_plate(workflow.folder / "in.zarr", all_wells(96), layout=96)
    workflow.write(RUN.replace("disk:HERE", f"disk://{workflow.folder}"))
    _, counts = workflow.counted()
    assert len(list((workflow.folder / "out").rglob("*.txt"))) == 96
    asking = asked(counts, ("exists", "is_file", "is_dir", "stat"))
    assert len(asking) >= 96
    for well in all_wells(96):
        for end in ("", "/tables/n.csv", ".txt"):
            calls = {c: n for c, n in asking.items() if c.endswith(f"/{well}{end}")}
            assert sum(calls.values()) <= 10, calls
    assert sum(asked(counts, LISTINGS).values()) <= 12
    output, counts = workflow.counted("--dry-run")
    assert "Nothing to be done" in output
    assert asked(counts, SINGLE) == {}
