"""Servers to try things on: found, reached, started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import polystore_flows as ps
from polystore_flows.backends.omero import OMEROInstanceManager
from polystore_flows.errors import (
    AccessDeniedError,
    MissingDependencyError,
    StoreUnavailableError,
)
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.demo import add_demo_plate


def manager(server: OmeroServer, **options: str) -> OMEROInstanceManager:
    return OMEROInstanceManager(server.host, server.port, tls=False, **options)  # type: ignore[arg-type]


def test_a_running_server_is_found_and_given_to_omeros_own_client(server: OmeroServer) -> None:
    number = add_demo_plate(server)
    with manager(server) as instance:
        assert instance.is_running()
        gateway = instance.get_connection()
        assert gateway.getObject("Plate", number).getName() == "demo"
    assert len(server.sessions) == len([s for s in server.sessions if s.clients])


def test_a_wrong_password_is_told_at_once(server: OmeroServer) -> None:
    instance = manager(server, user="demo", password="hunter2")
    with pytest.raises(AccessDeniedError, match="refuses") as caught:
        instance.connect(timeout=60)
    assert "hunter2" not in str(caught.value) + repr(vars(instance))


def test_a_server_that_does_not_come_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = OMEROInstanceManager("127.0.0.1", 9, user="demo", password="x", tls=False)
    assert not instance.is_running()
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:9"):
        instance.wait_for_ready(timeout=0.3)


def test_without_docker_other_ways_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OMERO_ROOT_PASSWORD", "secret")
    with pytest.raises(MissingDependencyError, match=r"docker is not installed.*dev-server"):
        OMEROInstanceManager("127.0.0.1", 9).start_via_docker_compose()


def test_there_is_no_default_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMERO_ROOT_PASSWORD", raising=False)
    with pytest.raises(AccessDeniedError, match="OMERO_ROOT_PASSWORD"):
        OMEROInstanceManager("127.0.0.1", 9).start_via_docker_compose()


def test_docker_is_told_the_shipped_file_and_no_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No Docker engine runs where these tests do; a script notes what it would be asked."""
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncat "$5" >> {tmp_path}/file\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("OMERO_ROOT_PASSWORD", "hunter2")
    instance = OMEROInstanceManager("127.0.0.1", 9)
    instance.start_via_docker_compose()
    instance.stop()
    asked = (tmp_path / "asked").read_text()
    assert re.findall(r"compose\.yaml (.*)", asked) == ["up --detach", "down"]
    assert "hunter2" not in asked
    compose = (tmp_path / "file").read_text()
    assert "${OMERO_ROOT_PASSWORD:?" in compose
    assert "127.0.0.1:${POLYSTORE_OMERO_PORT:-4064}" in compose


def test_a_docker_that_fails_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the\nDocker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("OMERO_ROOT_PASSWORD", "hunter2")
    with pytest.raises(StoreUnavailableError, match="Cannot connect to the Docker daemon"):
        OMEROInstanceManager("127.0.0.1", 9).start_via_docker_compose()


@pytest.mark.slow
def test_the_dev_server_serves_its_demo_plate_to_whoever_follows_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "polystore_flows", "omero", "dev-server", "--port", "0"]
    with subprocess.Popen(
        [*command, "--folder", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:
        assert server.stdout is not None
        try:
            printed = ""
            while "Ctrl-C" not in printed:
                line = server.stdout.readline()
                assert line, printed
                printed += line
            exports = dict(re.findall(r"export (\w+)=(.*)", printed))
            uri = re.search(r"info (omero://\S+)", printed)
            assert uri is not None
            done = subprocess.run(
                [sys.executable, "-m", "polystore_flows", "info", "--json", uri[1]],
                capture_output=True,
                text=True,
                timeout=120,
                env={**os.environ, **exports},
            )
            server.send_signal(signal.SIGINT)
            server.wait(60)
        finally:
            server.kill()
    assert done.returncode == 0, done.stderr
    assert '"wells": 6' in done.stdout


def test_the_status_command_tells(server: OmeroServer) -> None:
    from typer.testing import CliRunner

    from polystore_flows.omero_cli import app

    told = CliRunner().invoke(app, ["status", "--port", "9"])
    assert "not running" in told.output
    assert told.exit_code == 0  # the status that `main` exits with is what the command returns


def test_the_backends_old_name_finds_it() -> None:
    assert ps.get_backend("omero_local") is ps.get_backend("OMERO")
