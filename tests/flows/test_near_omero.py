"""A flow over a plate of an OMERO server, on the host that may log in there."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from started import python, start_server

import polystore_flows as ps
from polystore_flows.errors import PolystoreError
from polystore_flows.flows import run_near_data
from polystore_flows.settings import get_settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("Ice") is None, reason="omero-py is not installed"),
]


def test_the_worker_logs_in_and_the_submitter_needs_nothing(tmp_path, monkeypatch):
    from polystore_flows.testing.omero import OmeroServer
    from polystore_flows.testing.omero.demo import add_demo_plate

    with OmeroServer() as omero, start_server(tmp_path / "home") as server:
        source, target = omero.uri(f"plate/{add_demo_plate(omero)}"), omero.uri("plate/near")
        server.run(
            *python("-m", "polystore_flows", "deploy", "register"),
            *("--pool", "near", "--name", "omero"),
        )
        there = replace(server, env=server.env | omero.environment)
        worker = python("-m", "prefect", "worker", "start", "--pool", "near")
        with temporary_settings({PREFECT_API_URL: server.url}), there.beside(*worker):
            told: list[float] = []
            result = run_near_data(
                "process-plate/omero",
                source,
                target,
                "polystore_flows.steps:analyse_nuclei",
                progress=lambda state, percent: told.append(percent),
                timeout=400,
            )
        with pytest.raises(PolystoreError):  # nothing lets this process in
            ps.open_plate(source)
        for name, value in omero.environment.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        raw, made = ps.open_plate(source), ps.open_plate(target)
        assert made.wells == raw.wells
        assert sorted(result["processed"]) == sorted(raw.wells)
        assert told[-1] == 100
        for well in made.wells:
            assert made[well].image(made[well].fields[0]).label("nuclei").read().any()
    get_settings.cache_clear()
