"""Jobs that a cluster runs, with and without a shared file system, and crowds at one plate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from plugin_rig import make_hollow_plate, make_plate, tree

import polystore_flows as ps
from polystore_flows.demo import find_example
from polystore_flows.hcs.layout import SIZES, row_name

pytestmark = pytest.mark.slow

SUBMIT = """#!/bin/sh
# Starts a job somewhere else, as a cluster does, and prints its id.
job=$(mktemp -d CLUSTER/XXXXXX)
cp "$1" "$job/script"
mkdir "$job/node"
cp FILES "$job/node" 2> /dev/null
PATH=BIN:$PATH
(
    cd "$job/node" || exit 1
    if sh "$job/script" > "$job/log" 2>&1; then echo success; else echo failed; fi > "$job/said"
    mv "$job/said" "$job/state"
) < /dev/null > /dev/null 2>&1 &
echo "$job"
"""

STATUS = """#!/bin/sh
cat "$1/state" 2> /dev/null || echo running
"""


@pytest.fixture
def cluster(workflow, tmp_path_factory):
    """Options that have jobs run by a cluster."""
    folder = tmp_path_factory.mktemp("cluster")
    for name, text in {"submit": SUBMIT, "status": STATUS}.items():
        files = f"{workflow.folder}/Snakefile {workflow.folder}/*.py"
        path = folder / f"{name}.sh"
        bin_ = str(Path(sys.executable).parent)
        path.write_text(
            text.replace("CLUSTER", str(folder)).replace("FILES", files).replace("BIN", bin_)
        )
        path.chmod(0o755)
    options = ["--executor", "cluster-generic", "--jobs", "4", "--latency-wait", "20"]
    options += ["--cluster-generic-submit-cmd", f"{folder}/submit.sh"]
    options += ["--cluster-generic-status-cmd", f"{folder}/status.sh"]
    return [*options, "--seconds-between-status-checks", "1"]


CROWD = """
from polystore_flows.snakemake import wells

BATCHES = wells("zarr:HERE/in.zarr", group=8)

rule all:
    input: [storage(f"zarr:HERE/out.zarr/{well}") for batch in BATCHES.values() for well in batch]

for batch, group in BATCHES.items():
    rule:
        name: f"write_{batch}"
        input: [storage(f"zarr:HERE/in.zarr/{well}") for well in group]
        output: [storage(f"zarr:HERE/out.zarr/{well}") for well in group]
        shell: "PYTHON HERE/write.py {output}"
"""

WRITE = """
import sys
import numpy as np
import polystore_flows as ps

for uri in sys.argv[1:]:
    plate, _, well = uri.partition(".zarr/")
    number = sum(map(ord, well))
    out = ps.create_plate(plate + ".zarr", channels=["DAPI"], exist_ok=True)
    out.write_image(well, 0, np.full((1, 1, 1, 8, 8), number, "uint16"))
"""


@pytest.mark.parametrize("where", ["local", "cluster"])
def test_96_wells_are_written_into_one_plate_by_a_crowd(workflow, cluster, where):
    rows, columns = SIZES[96]
    names = [f"{row_name(row)}/{column + 1}" for row in range(rows) for column in range(columns)]
    make_hollow_plate(workflow.folder / "in.zarr", names, layout=96)
    workflow.write(CROWD.replace("zarr:HERE", f"zarr://{workflow.folder}"), write=WRITE)
    options = cluster if where == "cluster" else []
    workflow.run(*options, cores=8)
    uri = f"zarr://{workflow.folder}/out.zarr"
    plate = ps.open_plate(uri)
    assert plate.wells == tuple(names)
    for name in names:
        assert int(plate[name].image(0).plane()[0, 0]) == sum(map(ord, name))
    assert ps.get_backend("zarr").check_plate(uri) == []
    assert "Nothing to be done" in workflow.run(*options)


RETRIEVED = """
storage:
    provider="polystore",
    mode="copy"

rule all:
    input: storage("disk://HERE/store/all.txt")

rule each:
    input: storage("zarr://HERE/p.zarr/{well}"), storage("disk://HERE/raw/{well}.txt")
    output: storage("disk://HERE/store/{well}.txt"), storage("zarr://HERE/p.zarr/{well}/tables/t.csv")
    wildcard_constraints: well="[A-H]/[0-9]+"
    shell: "ls {input[0]}/0 > /dev/null; cat {input[1]} | tee {output[0]} > {output[1]}"

rule all_of_them:
    input: storage(expand("disk://HERE/store/{well}.txt", well=["B/3", "B/4"]))
    output: storage("disk://HERE/store/all.txt")
    shell: "cat {input} > {output}"
"""


@pytest.mark.parametrize("shared", [True, False], ids=["shared copies", "copies on nodes"])
def test_jobs_of_a_cluster_work_on_local_copies(workflow, cluster, shared):
    """With a shared file system an output is stored by the job, and by the main process again."""
    make_plate(workflow.folder / "p.zarr")
    for well in ("B/3", "B/4"):
        path = workflow.folder / f"raw/{well}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{well}\n")
    workflow.write(RETRIEVED)
    if not shared:
        usage = ["persistence", "sources", "source-cache", "software-deployment"]
        cluster += ["--shared-fs-usage", *usage, "--default-storage-provider", "polystore"]
        cluster += ["--default-storage-prefix", f"disk://{workflow.folder}/others"]
    workflow.run(*cluster)
    assert (workflow.folder / "store/all.txt").read_text() == "B/3\nB/4\n"
    assert ps.open_plate(f"zarr://{workflow.folder}/p.zarr").wells == ("B/3", "B/4")
    table = workflow.folder / "p.zarr/B/4/tables/t.csv"
    assert table.read_text() == "B/4\n"
    assert "Nothing to be done" in workflow.run(*cluster)


FAR = """
WELLS = ["B/3", "B/4", "C/3"]

rule all:
    input: expand("counts/{well}.txt", well=WELLS), "all.txt"

rule double:
    input: storage("zarr+BUCKET/in.zarr/{well}")
    output: storage("zarr+BUCKET/out.zarr/{well}")
    shell: "PYTHON double.py {input} {output}"

rule count:
    input: storage("zarr+BUCKET/out.zarr/{well}")
    output: "counts/{well}.txt"
    log: "logs/{well}.log"
    shell: "echo {wildcards.well} > {output} 2> {log}"

rule collect:
    input: expand("counts/{well}.txt", well=WELLS)
    output: "all.txt"
    shell: "cat {input} > {output}"
"""

DOUBLE = """
import sys
import polystore_flows as ps

source, target = sys.argv[1:]
plate, _, well = target.partition(".zarr/")
out = ps.create_plate(plate + ".zarr", channels=["DAPI"], exist_ok=True)
out.write_well(well, {f: image * 2 for f, image in ps.load(source).items()})
"""


def test_without_a_shared_file_system_everything_goes_through_an_object_store(
    workflow, cluster, bucket
):
    source = ps.create_plate(f"zarr+{bucket}/in.zarr", channels=["DAPI"])
    for number, well in enumerate(("B/3", "B/4", "C/3")):
        source.write_image(well, 0, np.full((1, 1, 1, 8, 8), number, "uint16"))
    workflow.write(FAR.replace("BUCKET", bucket), double=DOUBLE)
    options = ["--shared-fs-usage", "none", "--default-storage-provider", "polystore"]
    options += ["--default-storage-prefix", f"{bucket}/run"]
    workflow.run(*cluster, *options)
    assert ps.load(f"{bucket}/run/all.txt").split() == ["B/3", "B/4", "C/3"]
    out = ps.open_plate(f"zarr+{bucket}/out.zarr")
    assert out.wells == ("B/3", "B/4", "C/3")
    assert [int(out[well].image(0).read().max()) for well in out.wells] == [0, 2, 4]
    assert ps.get_backend("zarr").check_plate(f"zarr+{bucket}/out.zarr") == []
    assert "Nothing to be done" in workflow.run(*cluster, *options)
    assert not (workflow.folder / "counts").exists()


PROFILE = """
rule all:
    input: storage(expand("zarr:out.zarr/{well}", well=["B/3", "B/4", "C/3"]))

rule well:
    input: storage("zarr:in.zarr/{well}")
    output: storage("zarr:out.zarr/{well}")
    shell: "PYTHON double.py {input} {output}"
"""


def test_the_slurm_profile_is_understood_and_groups_wells(workflow, cluster):
    make_plate(workflow.folder / "in.zarr", wells=["B/3", "B/4", "C/3"])
    workflow.write(PROFILE, double=DOUBLE)
    profile = find_example().parent / "slurm-profile"
    output = workflow.run("--workflow-profile", str(profile), *cluster)
    submitted = [line for line in output.splitlines() if line.startswith("Submitted ")]
    assert len(submitted) == 1
    assert "group job" in submitted[0]
    assert ps.open_plate(f"zarr://{workflow.folder}/out.zarr").wells == ("B/3", "B/4", "C/3")


def test_the_submit_script_is_a_cluster(cluster, tmp_path):
    """Else the other tests prove nothing: jobs run elsewhere and failures are told."""
    submit = Path(cluster[cluster.index("--cluster-generic-submit-cmd") + 1])
    status = submit.with_name("status.sh")
    script = tmp_path / "job.sh"
    for code, state in ((0, "success"), (1, "failed")):
        script.write_text(f"pwd; exit {code}")
        job = subprocess.check_output([submit, script], text=True).strip()
        while (said := subprocess.check_output([status, job], text=True).strip()) == "running":
            pass
        assert said == state
        assert (Path(job) / "log").read_text().strip() == f"{job}/node"
    assert tree(tmp_path) == {"job.sh": b"pwd; exit 1"}
