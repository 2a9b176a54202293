"""Bad input ends a run with one line that names the query, and loses nothing."""

from __future__ import annotations

import pytest
from plugin_rig import make_plate

pytestmark = pytest.mark.slow


def lines_about(output, words):
    return [line for line in output.splitlines() if words in line]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("zarr:///d/p.zarr/../q.zarr", "'..' would leave its folder"),
        ("memory://a/b", "memory belongs to one process"),
        ("zarr:///d/p.zarr/nothing", "names nothing in a plate"),
    ],
)
def test_a_bad_query_ends_the_run_with_one_line_that_says_why(workflow, query, reason):
    workflow.write(f"""
rule all:
    input: storage.polystore("{query}")
""")
    found = lines_about(workflow.run(ok=False), reason)
    assert len(found) == 1
    assert f"query {query} is invalid" in found[0]


def test_a_missing_plate_ends_the_run_with_a_line_that_names_it(workflow):
    workflow.write("""
rule all:
    input: storage("zarr:no.zarr/B/3")
    output: "out.txt"
    shell: "cp -r {input} {output}"
""")
    output = workflow.run(ok=False)
    assert "zarr:no.zarr/B/3 (missing in storage)" in output or "MissingInput" in output


def test_an_error_of_the_store_ends_the_run_with_one_line(workflow):
    make_plate(workflow.folder / "in.zarr", wells=["B/3"])
    (workflow.folder / "in.zarr/zarr.json").write_text("{")
    workflow.write("""
rule all:
    input: storage("zarr:in.zarr/B/3")
    output: "out.txt"
    shell: "cp -r {input} {output}"
""")
    found = lines_about(workflow.run(ok=False), "zarr:in.zarr/B/3")
    assert len(found) == 1
