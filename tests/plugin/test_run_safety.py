"""Real runs in which something goes wrong, and secrets that nobody may see."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from plugin_rig import make_object, make_plate, make_provider, tree

import polystore_flows as ps
from polystore_flows.testing.s3 import CANARY

pytestmark = pytest.mark.slow

WELLS = """
rule all:
    input: storage(expand("zarr:out.zarr/{well}", well=["B/3", "B/4", "C/3"]))

rule double:
    input: storage("zarr:in.zarr/{well}")
    output: storage("zarr:out.zarr/{well,[A-H]/[0-9]+}")
    shell: "test ! -e fail; PYTHON double.py {input} {output}"
"""

DOUBLE = """
import sys
import polystore_flows as ps

source, target = sys.argv[1:]
plate, _, well = target.partition(".zarr/")
out = ps.create_plate(plate + ".zarr", channels=["DAPI"], exist_ok=True)
out.write_well(well, {f: image * 2 for f, image in ps.load(source).items()})
"""


def wells_of(document):
    return document["attributes"]["ome"]["plate"].pop("wells")


def test_a_failed_rerun_leaves_siblings_and_the_plate_as_they_were(workflow):
    """Snakemake removes an output before the job that makes it again, and after its failure."""
    make_plate(workflow.folder / "in.zarr", wells=["B/3", "B/4", "C/3"])
    workflow.write(WELLS, double=DOUBLE)
    workflow.run(cores=1)  # the first well that is written says how all are shown
    out = workflow.folder / "out.zarr"
    before = tree(out)
    image = np.full((1, 1, 1, 8, 8), 50, "uint16")
    source = ps.open_plate(f"zarr://{workflow.folder}/in.zarr", "r+")
    source.write_image("B/4", 0, image, overwrite=True)
    (workflow.folder / "fail").touch()
    for _ in range(2):
        workflow.run(ok=False)
        after = tree(out)
        assert not [name for name in after if name.startswith("B/4/")]
        old, new = json.loads(before["zarr.json"]), json.loads(after["zarr.json"])
        assert [well["path"] for well in wells_of(new)] == ["B/3", "C/3"]
        assert len(wells_of(old)) == 3
        assert new == old
        kept = {name for name in before if not name.startswith("B/4/")} - {"zarr.json"}
        assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
        assert ps.get_backend("zarr").check_plate(f"zarr://{out}") == []
    (workflow.folder / "fail").unlink()
    source.write_image("B/4", 0, image // 50, overwrite=True)
    workflow.run("--rerun-incomplete")
    assert tree(out) == before


SECRET = """
storage:
    provider="polystore"

rule all:
    input: storage.polystore("BUCKET/end.txt")

rule spawned:
    output: storage.polystore("BUCKET/a.txt")
    run:
        import time
        time.sleep(1)
        with open(output[0], "w") as file:
            file.write("a")

rule end:
    input: storage.polystore("BUCKET/a.txt")
    output: storage.polystore("BUCKET/end.txt")
    shell: "sleep 1; cp {input} {output}; test ! -e fail"
"""


class Watching:
    """Command lines of all processes while it is entered, as ``ps`` shows them."""

    def __enter__(self):
        self.seen, self._stop = set(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self.seen

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue


def test_a_secret_of_a_profile_is_seen_nowhere(workflow, bucket, server, tmp_path_factory):
    """What Snakemake takes from variables for a plugin, it shows on command lines of jobs."""
    credentials = tmp_path_factory.mktemp("home") / "credentials"
    credentials.write_text(f"[lab]\naws_access_key_id = me\naws_secret_access_key = {CANARY}\n")
    reach = {"endpoint": server.endpoint, "profile": "lab", "allow_http": True, "region": "x"}
    workflow.environment = {
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_SECRET_ACCESS_KEY": None,
        "AWS_ACCESS_KEY_ID": None,
        "AWS_ENDPOINT_URL": None,
        "POLYSTORE_OBJECTS": json.dumps({"s3": reach}),
    }
    workflow.write(SECRET.replace("BUCKET", bucket))
    said = []
    with Watching() as commands:
        (workflow.folder / "fail").touch()
        said.append(workflow.run("--verbose", "--printshellcmds", ok=False))
        (workflow.folder / "fail").unlink()
        said.append(workflow.run("--verbose", "--printshellcmds"))
        server.refuse = True
        try:
            said.append(workflow.run("--verbose", "--forceall", ok=False))
        finally:
            server.refuse = False
    assert any(b"--mode subprocess" in b" ".join(c.split(b"\0")) for c in commands)
    assert not [command for command in commands if CANARY.encode() in command]
    assert CANARY not in "".join(said)
    for name, content in tree(workflow.folder).items():
        assert CANARY.encode() not in content, name
    assert ps.load(f"{bucket}/end.txt") == "a"


def test_a_secret_is_in_no_representation(tmp_path, bucket):
    part = make_object(tmp_path, f"{bucket}/a.txt")
    part.exists()
    provider = make_provider(tmp_path)
    for thing in (part, provider, provider.settings, part.provider.answers, vars(part)):
        assert CANARY not in f"{thing!r} {thing}"
