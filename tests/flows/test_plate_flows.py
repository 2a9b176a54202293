"""What flows tell of plates, how they copy and check them, and what they do when a store fails."""

from __future__ import annotations

import io
import json
import re
import time

import numpy as np
import pytest
from PIL import Image
from plates import SHAPE, make_raw
from prefect.assets import Asset
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
)
from prefect.events.filters import EventFilter
from prefect.types._datetime import now as prefect_now
from pydantic import SecretStr

import polystore_flows as ps
from polystore_flows.errors import (
    AccessDeniedError,
    NotFoundError,
    StepError,
    StoredDataError,
    StoreUnavailableError,
    UnsupportedError,
    URIError,
)
from polystore_flows.flows import tasks
from polystore_flows.flows.access import blocks_of, granted
from polystore_flows.flows.assets import asset_key
from polystore_flows.flows.blocks import PlateRef, PolystoreCredentials
from polystore_flows.flows.plates import check_plate, copy_plate, process_plate
from polystore_flows.flows.summary import heat_map
from polystore_flows.hcs.layout import Layout
from polystore_flows.testing.s3 import CANARY


@pytest.fixture
def raw(tmp_path):
    return make_raw(f"zarr://{tmp_path}/raw plate.zarr", columns=2)


@pytest.fixture
def out(tmp_path):
    return f"zarr://{tmp_path}/out.zarr"


def _artifacts(state) -> dict[str, object]:
    """Type -> data of the artifacts of a run."""
    run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
    return {artifact.type: artifact for artifact in found}


def _events(since, prefix: str, count: int) -> list:
    """Events of a kind; they arrive at the server a moment later."""
    chosen = EventFilter.model_validate(
        {"occurred": {"since": since}, "event": {"prefix": [prefix]}}
    )
    for _ in range(300):
        with get_client(sync_client=True) as client:
            answer = client.request(
                "POST", "/events/filter", json={"filter": chosen.model_dump(mode="json")}
            )
        events = answer.json()["events"]
        if len(events) >= count:
            break
        time.sleep(0.1)
    return events


@pytest.fixture
def now():
    return prefect_now("UTC")


def test_a_run_shows_its_progress_its_wells_a_picture_and_its_report(raw, out):
    state = process_plate(
        raw.uri, out, "flow_steps:everything", report="https://lab/report.html", return_state=True
    )
    shown = _artifacts(state)
    assert shown["progress"].data == 100.0
    assert "4 of 4 wells" in shown["progress"].description
    assert "[Report of" in shown["markdown"].data
    assert shown["image"].data.startswith("data:image/png;base64,")
    rows = json.loads(shown["table"].data)
    assert [row["well"] for row in rows] == ["B/1", "B/2", "C/1", "C/2"]
    assert rows[0]["means"] == 2
    assert json.loads(shown["polystore-result"].data)["processed"] == ["B/1", "B/2", "C/1", "C/2"]
    shown.pop("result", None)  # Prefect's own
    keys = {artifact.key for artifact in shown.values()} - {None}
    assert len(keys) == 5
    assert all(re.fullmatch(r"[a-z0-9-]+", key) for key in keys)


def test_a_run_with_failures_shows_which_wells_and_why(raw, out):
    state = process_plate(raw.uri, out, "flow_steps:fails_on", {"values": [2]}, return_state=True)
    assert state.is_failed()
    rows = {row["well"]: row for row in json.loads(_artifacts(state)["table"].data)}
    assert rows["B/2"]["state"] == "failed"
    assert "ZeroDivisionError: no way with 2" in rows["B/2"]["error"]
    assert rows["B/1"]["state"] == "complete"


def test_events_tell_of_the_plates_and_how_one_came_from_the_other(raw, out, now):
    """Assets are the lineage: which plate was made from which."""
    copy_plate(raw.uri, out)
    process_plate(out, step="flow_steps:bright")
    with pytest.raises(StepError):
        process_plate(out, step="flow_steps:fails_on", output="labels/x", params={"values": [1]})
    made = _events(now, "prefect.asset.materialization.succeeded", 3)
    assert {event["resource"]["prefect.resource.id"] for event in made} == {asset_key(out)}
    related = {r["prefect.resource.id"] for event in made for r in event["related"]}
    assert asset_key(raw.uri) in related
    told = {event["event"]: event for event in _events(now, "polystore.plate", 3)}
    assert set(told) == {
        "polystore.plate.complete",
        "polystore.plate.processed",
        "polystore.plate.incomplete",
    }
    assert told["polystore.plate.complete"]["payload"]["uri"] == out


def test_a_plate_is_copied_by_chunks_with_its_labels_and_tables(raw, out):
    raw.write_label("B/1", 0, "nuclei", np.ones((1, 1, *SHAPE[2:]), "uint32"))
    raw.write_table("tables/plan.csv", [{"well": "B/1", "dose": 3}])
    done = copy_plate(raw.uri, out, chunk_size=3)
    assert done["processed"] == ["B/1", "B/2", "C/1", "C/2"]
    copy = ps.open_plate(out)
    np.testing.assert_array_equal(copy["C/2"].image(0).read(), raw["C/2"].image(0).read())
    assert copy["B/1"].image(0).labels == ("nuclei",)
    assert copy.read_table("tables/plan.csv")["dose"].tolist() == [3]
    assert copy_plate(raw.uri, out)["failed"] == {}
    other = f"{out[:-5]}2.zarr"
    ps.create_plate(other, like=raw).write_image("B/2", 0, np.zeros(SHAPE, "uint16"))
    with pytest.raises(StepError, match=r"B/2 .*holds other data"):
        copy_plate(raw.uri, other)


def test_a_plate_is_checked_and_a_broken_one_fails_the_flow(raw, tmp_path, now):
    assert check_plate(raw.uri, announce=True) == []
    assert _events(now, "polystore.plate.complete", 1)
    (tmp_path / "raw plate.zarr" / "B" / "1" / "0" / "zarr.json").unlink()
    with pytest.raises(StoredDataError, match=r"breaks \d+ rules"):
        check_plate(raw.uri)
    with pytest.raises(UnsupportedError, match="only OME-Zarr"):
        check_plate(f"disk://{tmp_path}")


# Stores that fail


@pytest.fixture
def quick_retries(monkeypatch):
    """Retries without their pauses, which give a store time to come back."""
    monkeypatch.setattr(tasks.process_chunk, "retry_delay_seconds", [0, 0])


def test_a_store_that_goes_away_fails_the_run_and_loses_nothing(
    s3, s3_server, quick_retries, out, monkeypatch
):
    """The wells that are done stay done, and the next run makes the others."""
    monkeypatch.setenv("POLYSTORE_OBJECTS_RETRIES", "0")
    ps.settings.get_settings.cache_clear()
    raw = make_raw(f"{s3}/raw", rows="BCD", columns=2)

    def away(image):
        if image.flat[0] == 2:
            s3_server.refuse = True
        return image

    with pytest.raises(StepError, match=r"AccessDeniedError|StoreUnavailableError"):
        process_plate(raw.uri, out, away, chunk_size=1, runner="threads:1")
    assert "B/1" in ps.open_plate(out)
    s3_server.refuse = False
    done = process_plate(raw.uri, out, "flow_steps:scale", overwrite=True)
    assert sorted(done["processed"]) == ["B/1", "B/2", "C/1", "C/2", "D/1", "D/2"]
    assert len(ps.open_plate(out)) == 6


def test_a_store_that_comes_back_is_waited_for(s3, out, quick_retries, monkeypatch):
    """A server that restarts costs a retry, not a run."""
    raw = make_raw(f"{s3}/raw", rows="B", columns=2)
    calls = []

    def down(image):
        calls.append(1)
        if len(calls) == 2:
            raise StoreUnavailableError("s3://bucket: no answer")
        return image

    done = process_plate(raw.uri, out, down)
    assert done["processed"] == ["B/1", "B/2"]
    assert len(calls) == 3  # B/1 was entered in the record before the task ended


def test_credentials_of_a_block_lead_to_the_store_and_wrong_ones_are_named(
    s3, s3_server, out, name, monkeypatch
):
    make_raw(f"{s3}/raw", rows="B", columns=2)
    for variable in s3_server.environment:
        monkeypatch.delenv(variable)
    how = {"endpoint": s3_server.endpoint, "allow_http": True, "region": "us-east-1"}
    PolystoreCredentials(user="someone", secret=SecretStr(CANARY), **how).save(name)
    source = PlateRef(uri=f"{s3}/raw", credentials=PolystoreCredentials.load(name))
    done = process_plate(source, out, "flow_steps:scale")
    assert done["processed"] == ["B/1", "B/2"]
    s3_server.refuse = True
    with pytest.raises(AccessDeniedError) as caught:
        process_plate(source, out, "flow_steps:scale", {"factor": 3})
    assert s3 in str(caught.value)
    assert CANARY not in str(caught.value)


def test_credentials_in_a_block_that_was_not_saved_are_refused(name):
    secret = PolystoreCredentials(secret=SecretStr(CANARY))
    place = PlateRef(uri="s3://bucket/raw", credentials=secret)
    with pytest.raises(AccessDeniedError, match="was not saved"):
        blocks_of(place)
    place.save(name)
    assert blocks_of(PlateRef.load(name)) == {"s3://bucket": f"polystore-plate/{name}"}
    assert blocks_of(PlateRef(uri="zarr:/p.zarr", credentials=secret)) == {}
    missing = granted({"s3://bucket": "polystore-credentials/missing-one"})
    with pytest.raises(NotFoundError, match="no block polystore-credentials/missing-one"):
        missing.__enter__()


def _runs(flow_name: str) -> int:
    with get_client(sync_client=True) as client:
        chosen = FlowFilter(name=FlowFilterName(any_=[flow_name]))
        return len(client.read_flow_runs(flow_filter=chosen, limit=200))


@pytest.mark.parametrize("uri", [f"omero://u:{CANARY}@h/plate/1", f"s3://b/p?token={CANARY}"])
def test_a_uri_with_a_password_makes_no_run(uri, out, caplog):
    """Prefect keeps the parameters of a run before it validates them."""
    before = _runs("process-plate") + _runs("copy-plate")
    for call in (
        lambda: process_plate(uri, out, "flow_steps:scale"),
        lambda: process_plate(out, uri, "flow_steps:scale"),
        lambda: copy_plate(source=uri, target=out),
        lambda: check_plate(uri),
        lambda: process_plate(out, out, "flow_steps:scale", {"other": [uri]}),
    ):
        with pytest.raises(URIError) as caught:
            call()
        assert CANARY not in str(caught.value)
    assert _runs("process-plate") + _runs("copy-plate") == before
    assert CANARY not in caplog.text


# Pictures and keys


def test_a_heat_map_is_a_picture_of_any_layout():
    for size in (6, 96, 1536):
        layout = Layout.of(size)
        png = heat_map(layout, {"A/1": 1.0, "A/2": 2.0, "B/1": float("nan")}, ["B/2"])
        picture = Image.open(io.BytesIO(png))
        assert picture.width > picture.height > 50
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 3
    assert heat_map(Layout.of(96), {}) != heat_map(Layout.of(96), {"A/1": 0.0})


def test_asset_keys_are_accepted_and_all_different(tmp_path):
    """Prefect refuses '+' in a scheme, spaces and '%'; two plates must not become one asset."""
    uris = [
        *("zarr+s3://b/p.zarr", "zarr:///zarr+s3/b/p.zarr", "polystore://zarr+s3/b/p.zarr"),
        *("s3://zarr+s3/b/p.zarr", "polystore+x://zarr/b/p", "memory://a/b c", "memory://a/b~20c"),
        *("memory://a/b%20c", "memory://a/bc", "disk:///ü", "disk:///u", "disk:///~c3~bc"),
        *("disk:///a?pattern=x", "disk:///a", "disk:///a/x", "disk:///'\"<>#&[]{}|\\^`"),
        *(f"disk:///{'x' * 600}", f"disk:///{'x' * 601}", f"disk:///{'x' * 600}/~"),
    ]
    keys = [asset_key(uri) for uri in uris]
    assert len(set(keys)) == len(uris)
    for key in keys:
        Asset(key=key)
    assert asset_key("zarr:///data/p.zarr") == "zarr:///data/p.zarr"
    assert asset_key("zarr:p.zarr").startswith("zarr:///")
    assert CANARY not in asset_key(f"s3://b/p?token={CANARY}")
