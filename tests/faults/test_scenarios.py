"""Everything goes wrong: nothing is lost, nothing is applied twice, nobody is stuck."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from polystore_flows.testing.faults import SCENARIOS
from polystore_flows.testing.faults.scenarios import SKIPPED


def python(script: str, *args: object, timeout: float = 280) -> str:
    """Run a script in a process of its own: what kills must fork, and has one thread."""
    command = [sys.executable, "-W", "error", "-c", script, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "storm"])
def test_nothing_is_lost_when(name: str) -> None:
    out = python(
        "import json, sys; from polystore_flows.testing.faults import run;"
        "print(json.dumps(run(sys.argv[1])))",
        name,
    )
    found = json.loads(out.splitlines()[-1])
    if found and found[0].startswith(SKIPPED):
        pytest.skip(found[0])
    assert found == []


STORM = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from polystore_flows.testing.faults import storm
print(json.dumps(asdict(storm(Path(sys.argv[1]), kills=int(sys.argv[2]), seed=int(sys.argv[3])))))
"""


def test_500_kills_of_writers_lose_nothing(tmp_path: Path) -> None:
    figures = json.loads(python(STORM, tmp_path / "storm", 500, 1))
    assert figures["faults"] == []
    assert figures["kills"] >= 500
    assert figures["stops"] > 10
    assert figures["acknowledged"] > 250
    assert figures["slowest"] < 10  # under 1 s on a quiet machine; a stuck lock lasts 30 s


CROWD = """
import json, sys
from pathlib import Path
from polystore_flows.testing.faults import crowd
how, victim = sys.argv[2:]
options = {"times": 10} if how == "killed" else {"every": 2}
print(json.dumps(getattr(crowd, how)(Path(sys.argv[1]), victim, **options)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["leader", "follower"])
@pytest.mark.parametrize("how", ["killed", "failed"])
def test_at_every_step_of_a_commit_that_others_have_joined(
    tmp_path: Path, how: str, victim: str
) -> None:
    """Ten deaths before each system call; half of all ways in which each call can fail."""
    assert json.loads(python(CROWD, tmp_path / "crowd", how, victim)) == []


@pytest.mark.slow
def test_every_failure_of_every_call_of_one_writer(tmp_path: Path) -> None:
    script = """
import json, sys
from pathlib import Path
from polystore_flows.testing.faults import crowd
print(json.dumps(crowd.alone_failed(Path(sys.argv[1]))))
"""
    assert json.loads(python(script, tmp_path / "alone")) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_kernel_is_asked_for_the_syncs_in_the_right_order(tmp_path: Path) -> None:
    """What Python is asked for is not the proof; what the kernel is asked for is."""
    document, trace = tmp_path / "a.json", tmp_path / "trace"
    script = """
import sys
from polystore_flows.metadata import AtomicMetadataWriter
for number in range(3):
    AtomicMetadataWriter().update_subdirectory_metadata(sys.argv[1], "a", {"n": number})
"""
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2"
    command = ["strace", "-f", "-y", "-e", calls, "-o", str(trace)]
    done = subprocess.run(
        [*command, sys.executable, "-c", script, str(document)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr!r}")
    steps = []
    for line in trace.read_text().splitlines():
        if str(tmp_path) not in line:
            continue
        if "fdatasync(" in line:
            assert ".tmp>" in line
            steps.append("data")
        elif "rename" in line:
            steps.append("replace")
        else:
            assert f"<{tmp_path}>" in line
            steps.append("folder")
    assert steps == ["data", "replace", "folder"] * 3


def test_the_command_prints_what_it_found() -> None:
    command = [sys.executable, "-m", "polystore_flows.testing.faults", "--only", "order"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "order: good" in done.stdout
    assert "0 faults" in done.stdout
