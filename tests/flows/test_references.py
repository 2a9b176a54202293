"""Results by reference: what is kept, what comes back, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from prefect import flow, task
from prefect.results import ResultRecord
from prefect.serializers import Serializer
from pydantic import SecretStr

import polystore_flows as ps
from polystore_flows.errors import (
    ConflictError,
    MismatchError,
    NotFoundError,
    PolystoreError,
    StoreUnavailableError,
    URIError,
)
from polystore_flows.flows.blocks import PlateRef, PolystoreCredentials, PolystoreStore
from polystore_flows.flows.references import LARGEST, Reference, ReferenceSerializer

CANARY = "canary-password"
IMAGE = np.arange(2 * 8 * 6, dtype="uint16").reshape(1, 2, 1, 8, 6)


@pytest.fixture
def plate(places):
    plate = ps.create_plate(places("p"), channels=["DAPI", "GFP"])
    plate.write_image("B/03", 0, IMAGE)
    plate.write_table("tables/counts.csv", [{"well": "B/03", "nuclei": 3}])
    return plate


def _back(value: object) -> object:
    serializer = ReferenceSerializer()
    return serializer.loads(serializer.dumps(value))


def test_json_and_small_arrays_come_back():
    value = {"a": [1, 2.5, None, True, "text"], "µm": {"x": -0.0}, "inf": float("inf")}
    assert _back(value) == value
    assert _back((1, np.float32(0.5), np.int64(3))) == [1, 0.5, 3]
    for array in (np.zeros((2, 0), "uint8"), IMAGE[0, 0].T, np.array(3.5), np.array([True])):
        back = _back({"a": array})["a"]
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back, array)
        back[...] = 0  # a copy of one's own


def test_what_is_stored_is_kept_by_its_uri_and_loaded_when_asked_for(plate):
    kept = ReferenceSerializer().dumps([plate, plate["B/03"], plate["B/03"].image(0)])
    assert len(kept) < 1500
    whole, well, field = ReferenceSerializer().loads(kept)
    assert whole.load().wells == ("B/3",)
    assert well.uri.endswith("/B/3")
    np.testing.assert_array_equal(field.load(), IMAGE)
    table = _back(Reference.to(f"{plate.uri}/tables/counts.csv"))
    assert table.load()["nuclei"].tolist() == [3]


def test_a_result_whose_reference_is_gone_or_changed_does_not_load(plate):
    """Prefect then takes it for missing, and makes it again."""
    well = ReferenceSerializer().dumps(Reference.to(f"{plate.uri}/B/3"))
    plate.write_image("B/03", 0, IMAGE + 1, overwrite=True)
    with pytest.raises(ConflictError, match="changed"):
        ReferenceSerializer().loads(well)
    assert ReferenceSerializer(verify=False).loads(well).uri == f"{plate.uri}/B/3"
    again = ReferenceSerializer().dumps(Reference.to(f"{plate.uri}/B/3"))
    plate.write_label("B/03", 0, "nuclei", IMAGE[:, :1])
    ReferenceSerializer().loads(again)  # labels come later, and are no change of the images
    ps.delete(f"{plate.uri}/B/3")
    with pytest.raises(NotFoundError, match="gone"):
        ReferenceSerializer().loads(again)
    with pytest.raises(NotFoundError):
        Reference.to(f"{plate.uri}/B/3")


def test_large_arrays_and_data_frames_are_refused():
    for value in (np.zeros(LARGEST + 1, "uint8"), [{"a": np.zeros((64, 64))}]):
        with pytest.raises(MismatchError, match="write it to a plate"):
            ReferenceSerializer().dumps(value)
    for value in (pd.DataFrame({"a": [1]}), object(), {1: 2}, b"bytes", np.array([None])):
        with pytest.raises(MismatchError):
            ReferenceSerializer().dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        SecretStr(CANARY),
        PolystoreCredentials(secret=SecretStr(CANARY)),
        {"deep": [f"omero://u:{CANARY}@h/plate/1"]},
        f"see s3://bucket/key?a=1&X-Amz-Signature={CANARY} for it",
        Reference(f"omero://u:{CANARY}@h/plate/1"),
        RuntimeError(f"cannot reach https://u:{CANARY}@h"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_with_a_secret_is_kept(value):
    with pytest.raises(MismatchError, match="does not hold") as caught:
        ReferenceSerializer().dumps(value)
    assert CANARY not in str(caught.value)
    with pytest.raises(URIError):
        Reference.to(f"omero://u:{CANARY}@h/plate/1")


def test_texts_that_only_look_like_uris_are_kept():
    """Messages of errors hold colons, at signs and question marks."""
    for text in ("at 12:30 by a:b@c", "is it zarr:///p.zarr?", "s3://b/k?level=1", "mailto:a@b.c"):
        assert _back(text) == text


def test_a_block_with_a_uri_is_kept_as_a_reference(places):
    ps.create_plate(places("p"), channels=["DAPI"])
    secret = PolystoreCredentials(secret=SecretStr(CANARY))
    kept = ReferenceSerializer().dumps(PlateRef(uri=places("p"), credentials=secret))
    assert CANARY.encode() not in kept
    assert ReferenceSerializer().loads(kept).load().channels == ("DAPI",)


def test_errors_keep_their_kind_where_it_is_known():
    """Prefect keeps the error of a failed task as its result."""
    assert isinstance(_back(StoreUnavailableError("s3://b: no answer")), StoreUnavailableError)
    assert isinstance(_back(ValueError("wrong")), ValueError)

    class ForeignError(Exception):
        pass

    back = _back(ForeignError("gone"))
    assert isinstance(back, PolystoreError)
    assert str(back) == "ForeignError: gone"


def test_prefect_finds_the_serializer_by_its_name(plate):
    """A record says which serializer it was made with."""
    record = ResultRecord(
        result={"a": 1},
        metadata={"storage_key": "key", "serializer": ReferenceSerializer()},  # type: ignore[arg-type]
    )
    assert json.loads(record.serialize())["metadata"]["serializer"]["type"]
    assert ResultRecord.deserialize(record.serialize()).result == {"a": 1}
    assert isinstance(Serializer(type="polystore/reference"), ReferenceSerializer)


def test_results_are_kept_in_any_store(places, name):
    """A task's record goes to the block, and is read back from it, also in a plate's tables."""
    uri = places("p")
    if uri.startswith("zarr"):
        ps.create_plate(uri, channels=["DAPI"])
        uri = f"{uri}/tables"
    PolystoreStore(uri=uri).save(name)

    @task(persist_result=True, result_serializer=ReferenceSerializer(), result_storage_key="µ k.1")
    def answer() -> dict[str, int]:
        return {"answer": 42}

    storage = PolystoreStore.load(name)

    @flow
    def asking():
        return answer.with_options(result_storage=storage)(return_state=True)

    state = asking(return_state=True).result()
    assert len(storage.list_paths()) == 1
    assert storage.exists("µ k.1")
    assert ResultRecord.deserialize(storage.read_path("µ k.1")).result == {"answer": 42}
    assert state.result() == {"answer": 42}
