"""The blocks: Prefect's own suite, both ways to call them, secrets that stay where they are."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from prefect import flow, task
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

import polystore_flows as ps
from polystore_flows.credentials import find
from polystore_flows.errors import AccessDeniedError, NotFoundError, URIError
from polystore_flows.flows import blocks
from polystore_flows.flows.blocks import PlateRef, PolystoreCredentials, PolystoreStore

BLOCKS = (PolystoreCredentials, PolystoreStore, PlateRef)
CANARY = "canary-password"


class TestBlocks(BlockStandardTestSuite):
    @pytest.fixture(params=BLOCKS, ids=lambda block: block.__name__)
    def block(self, request, monkeypatch):
        """The packaged logo stands in for its address, so that no test needs the network."""
        logo = files(blocks) / "logo.png"
        monkeypatch.setattr(request.param, "_logo_url", f"file://{logo}")
        return request.param


def test_a_registration_shows_slugs_capabilities_and_versions(prefect_server):
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    command = [sys.executable, "-m", "prefect", "block", "register", "-m", blocks.__name__]
    environment = get_current_settings().to_environment_variables(exclude_unset=True)
    import os

    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    with get_client(sync_client=True) as client:
        for cls in BLOCKS:
            assert cls.get_block_type_name() in done.stdout
            client.read_block_type_by_slug(cls.get_block_type_slug())
            schema = client.read_block_schema_by_checksum(cls._calculate_schema_checksum())
            assert schema.version == "1.0.0"
            assert set(schema.capabilities) == set(cls.get_block_capabilities())
    assert {"read-path", "write-path", "get-directory", "put-directory"} <= set(
        PolystoreStore.get_block_capabilities()
    )
    assert {c.get_block_type_slug() for c in BLOCKS} == {
        "polystore-credentials",
        "polystore-store",
        "polystore-plate",
    }


def test_prefect_finds_the_blocks_by_their_entry_point():
    """A worker loads a block by its slug without having imported this package."""
    found = entry_points(group="prefect.collections", name="polystore_flows")
    assert [ep.load() for ep in found] == [blocks]


@pytest.fixture(params=["disk", "memory", "zarr"])
def store(request, tmp_path, name):
    if request.param == "memory":
        return PolystoreStore(uri=f"memory://{name}/base")
    if request.param == "zarr":
        ps.create_plate(tmp_path / "p.zarr", channels=["DAPI"])
        return PolystoreStore(uri=f"zarr://{tmp_path}/p.zarr/tables")
    return PolystoreStore(uri=f"disk://{tmp_path}/base")


KEYS = ["a", "a.b", "a.c", "deep/er/key", "with space", "µm-größe-ü", "per%cent#hash", "x.json"]


def test_files_come_back_under_any_key(store):
    """Keys with dots, slashes, spaces and letters of any kind are all different files."""
    for key in KEYS:
        store.write_path(key, f'{{"key": "{key}"}}\n'.encode())
    for key in KEYS:
        assert f'"key": "{key}"'.encode() in store.read_path(key)
        assert store.exists(key)
    assert len(store.list_paths()) == len(KEYS)
    assert not store.exists("nothing")
    with pytest.raises(NotFoundError):
        store.read_path("nothing")


def test_a_key_cannot_leave_its_store(store):
    for key in ("../a", "a/../../b", "a?b=c"):
        with pytest.raises(URIError):
            store.write_path(key, b"text")


def test_an_etag_changes_with_the_file(store):
    assert store.etag("a") is None
    store.write_path("a", b"one")
    first = store.etag("a")
    assert first is not None
    assert store.etag("a") == first
    store.write_path("a", b"four")
    assert store.etag("a") != first


def test_every_method_can_be_awaited(store, tmp_path):
    """Prefect awaits ``aread_path`` in async flows, else it calls ``read_path(_sync=True)``."""

    async def use() -> list[str]:
        await store.write_path("a", b"one")
        assert await store.aread_path("a") == b"one"
        assert store.read_path("a", _sync=True) == b"one"
        assert await store.exists("a")
        await store.aupdate_json("d.json", lambda d: {**d, "n": d.get("n", 0) + 1})
        return await store.list_paths()

    assert len(asyncio.run(use())) == 2
    for name in ("get_directory", "put_directory", "download_object_to_path", "upload_from_path"):
        assert asyncio.iscoroutinefunction(getattr(store, f"a{name}"))


def test_folders_go_up_and_down(tmp_path, name):
    store = PolystoreStore(uri=f"memory://{name}/code")
    source = tmp_path / "source"
    for path, text in {"flow.py": "1", "data/a.txt": "2", "skip/b.log": "3"}.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    (source / ".prefectignore").write_text("*.log\n")
    count = store.put_directory(str(source), "v1", ignore_file=str(source / ".prefectignore"))
    assert count == 3
    store.get_directory("v1", str(tmp_path / "back"))
    back = {p.relative_to(tmp_path / "back").as_posix() for p in (tmp_path / "back").rglob("*.*")}
    assert back == {"flow.py", "data/a.txt", ".prefectignore"}
    assert store.upload_from_folder(source / "data", "v2").endswith("/v2")
    with (tmp_path / "x").open("w+b") as file:
        store.download_object_to_file_object("v2/a.txt", file)
        file.seek(0)
        store.upload_from_file_object(file, "v2/b.txt")
    assert store.download_object_to_path("v2/b.txt", tmp_path / "n/b.txt").read_text() == "2"
    assert store.upload_from_path(tmp_path / "x", "c").endswith("/c")
    assert store.download_folder_to_path("v2", tmp_path / "down") == tmp_path / "down"
    with pytest.raises(NotFoundError, match="is no folder"):
        store.put_directory(str(tmp_path / "missing"))


def test_a_plate_is_opened_below_a_store_and_by_its_reference(tmp_path, name):
    plate = ps.create_plate(tmp_path / "plates/p.zarr", channels=["DAPI"])
    plate.write_image("B/03", 0, np.ones((1, 1, 1, 8, 8), "uint16"))
    store = PolystoreStore(uri=f"disk://{tmp_path}/plates")
    with pytest.raises(NotFoundError):
        store.open_plate("other")
    zarr = PolystoreStore(uri=f"zarr://{tmp_path}/plates")
    assert zarr.open_plate("p.zarr").wells == ("B/3",)
    PlateRef(uri=f"zarr://{tmp_path}/plates/p.zarr").save(name)
    assert PlateRef.load(name).open_plate().wells == ("B/3",)


def test_a_block_is_a_parameter_of_a_flow_by_reference(tmp_path, name):
    ps.create_plate(tmp_path / "p.zarr", channels=["DAPI"])
    PlateRef(uri=f"zarr://{tmp_path}/p.zarr").save(name)

    @flow
    def channels(plate: PlateRef) -> list[str]:
        return list(plate.open_plate().channels)

    assert channels({"$ref": {"block_document_slug": f"polystore-plate/{name}"}}) == ["DAPI"]


# Secrets


@pytest.fixture
def credentials():
    return PolystoreCredentials(user="lab", secret=SecretStr(CANARY), token=SecretStr(CANARY))


@pytest.mark.parametrize("uri", [f"omero://u:{CANARY}@h/plate/1", f"s3://b/k?token={CANARY}"])
def test_a_uri_with_a_secret_is_refused_without_repeating_it(uri):
    """Blocks show their URI to everybody, and pydantic's errors repeat what they refuse."""
    for cls in (PolystoreStore, PlateRef):
        with pytest.raises(ValidationError, match="carries a") as caught:
            cls(uri=uri)
        assert CANARY not in f"{caught.value} {caught.value!r}"


def test_no_pickle_holds_a_secret(credentials):
    store = PolystoreStore(uri="s3://bucket/key", credentials=credentials)
    for pickled in (pickle.dumps(store), cloudpickle.dumps(credentials)):
        assert CANARY.encode() not in pickled
    assert CANARY not in repr(store)
    assert credentials.get().secret == CANARY
    with pytest.raises(AccessDeniedError, match="save them as a block"):
        pickle.loads(pickle.dumps(store)).given_credentials()


@pytest.mark.parametrize("nested", [True, False])
def test_a_pickled_block_finds_its_saved_secrets(credentials, name, nested):
    if nested:
        credentials.save(name)
        credentials = PolystoreCredentials.load(name)
    PolystoreStore(uri="s3://bucket/key", credentials=credentials).save(name)
    store = pickle.loads(pickle.dumps(PolystoreStore.load(name)))
    assert store.given_credentials()["s3://bucket"].secret == CANARY
    with store.access():
        assert find("s3://bucket").secret == CANARY
    assert find("s3://bucket") is None


def test_a_task_that_returns_credentials_keeps_no_secret(credentials, result_folder):
    """Prefect pickles what a task returns."""

    @task(persist_result=True)
    def leak() -> PolystoreCredentials:
        return credentials

    @flow
    def leaking() -> None:
        leak()

    leaking()
    import base64

    records = [path.read_text() for path in result_folder.iterdir()]
    assert len(records) == 1
    import json

    pickled = base64.decodebytes(json.loads(records[0])["result"].encode())
    assert CANARY.encode() not in pickled


def test_an_unsaved_block_as_storage_is_refused(tmp_path):
    with pytest.raises(TypeError, match="save"):

        @task(result_storage=PolystoreStore(uri=f"disk://{Path(tmp_path)}"))
        def kept() -> int:
            return 1
