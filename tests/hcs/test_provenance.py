"""Provenance says what made a field, as JSON, and never holds a secret."""

from __future__ import annotations

import json

import pytest

from polystore_flows.errors import CorruptMetadataError, MismatchError
from polystore_flows.hcs.provenance import Input, Provenance

WHOLE = Provenance(
    "illumination",
    "1.2",
    {"sigma": 2.5, "channels": ["DAPI"], "keypoints": 7},
    (Input("zarr:raw.zarr/B/03", 10, "2025-01-02T03:04:05+00:00", "ab12"),),
    "2025-01-03T00:00:00+00:00",
)


def test_it_comes_back_from_json() -> None:
    stored = json.loads(json.dumps(WHOLE.as_json()))
    assert Provenance.from_json(stored, "here") == WHOLE
    least = Provenance("tool")
    assert set(least.as_json()) == {"tool", "created"}
    assert Provenance.from_json(least.as_json(), "here") == least


def test_secrets_in_inputs_and_parameters_are_masked_before_anything_is_written() -> None:
    made = Provenance(
        "copy",
        parameters={
            "source": "omero://ada:hunter2@host/plate/1",
            "endpoint": "https://host/?token=hunter2&size=3",
            "nested": {"api_key": "hunter2", "list": ["s3://b/k?signature=hunter2"]},
            "password": "hunter2",
        },
        inputs=(Input("omero://ada:hunter2@host/plate/1"), Input("s3://b/k?X-Amz-Token=hunter2")),
    )
    assert "hunter2" not in json.dumps(made.as_json())
    assert "hunter2" not in repr(made)
    assert made.parameters["endpoint"] == "https://host/?token=***&size=3"


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_parameters_are_json(value: object) -> None:
    with pytest.raises(MismatchError, match="the parameters of blur are no JSON"):
        Provenance("blur", parameters={"value": value})


def test_a_provenance_names_its_tool() -> None:
    with pytest.raises(MismatchError, match="name of its tool"):
        Provenance("")


@pytest.mark.parametrize("stored", [[], {}, {"tool": "a", "b": 1}, {"tool": "a", "inputs": 3}])
def test_what_is_no_provenance_raises_and_says_where(stored: object) -> None:
    with pytest.raises(CorruptMetadataError, match=r"^zarr:p/B/3/0: this is no provenance"):
        Provenance.from_json(stored, "zarr:p/B/3/0")
