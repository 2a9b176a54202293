"""OME-Zarr plates on an object store and in memory: the whole plate API, and what it costs."""

from __future__ import annotations

import numpy as np
import obstore.store
import pytest
import zarr
import zarr.storage
from zarr_plates import check, keys, new, noise

import polystore_flows as ps
from polystore_flows.backends.zarr import uploads
from polystore_flows.errors import (
    AlreadyExistsError,
    CorruptDataError,
    NotFoundError,
    UnsupportedError,
    URIError,
)
from polystore_flows.testing.contract_suites import StorageBackendSuite
from polystore_flows.testing.rigs import Rig
from polystore_flows.uri import parse_uri


@pytest.fixture
def uri(store):
    return f"zarr+{store}/lab/p.zarr"


@pytest.fixture
def plate(uri):
    return new(uri)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_is_written_is_read_back_by_plate_and_by_uri(uri, version):
    plate = new(uri, ngff_version=version)
    assert plate.wells == ()
    array = noise()
    plate.write_image("B/03", 0, array)
    plate.write_well("H/12", {0: array + 1, 1: array + 2}, {1: {"cells": array[:, :1]}})
    plate.write_label("B/03", 0, "nuclei", array[:, :1].astype("uint32"))
    plate.write_table("tables/counts.csv", [{"well": "B/03", "nuclei": 7}])
    ps.save({"lens": 20}, f"{uri}/B/03/tables/notes.json")
    again = ps.open_plate(uri)
    assert again.wells == ("B/3", "H/12")
    assert again.channels == ("DAPI", "GFP")
    assert again.pixel_size == (2, 0.65, 0.65)
    assert again["H/12"].fields == ("0", "1")
    image = again["B/03"].image(0)
    np.testing.assert_array_equal(image.read(), array)
    np.testing.assert_array_equal(image.plane(t=1, c="GFP", z=2), array[1, 1, 2])
    np.testing.assert_array_equal(image.label("nuclei").read(), array[:, :1])
    assert image.read(level=1).shape == (2, 2, 3, 22, 33)
    np.testing.assert_array_equal(ps.load(f"{uri}/B/03/0?c=DAPI&z=1&t=0"), array[0, 0, 1])
    np.testing.assert_array_equal(ps.load(f"{uri}/H/12")["1"], array + 2)
    assert ps.load(f"{uri}/tables/counts.csv")["nuclei"].tolist() == [7]
    assert ps.load(f"{uri}/B/3/tables/notes.json") == {"lens": 20}
    assert [name.removeprefix(f"{uri}/") for name in ps.list_files(uri, recursive=True)] == [
        "B/3/0", "B/3/0/labels/nuclei", "B/3/tables/notes.json",
        "H/12/0", "H/12/1", "H/12/1/labels/cells", "tables/counts.csv",
    ]  # fmt: skip
    assert ps.get_backend("zarr").list_dir(uri) == ["B", "H", "tables"]
    for part, kind in (("", "plate"), ("/B/03", "well"), ("/B/3/0", "field"),
                       ("/B/3/0/labels/nuclei", "label"), ("/tables", "directory")):  # fmt: skip
        assert ps.exists(uri + part)
        stat = ps.stat(uri + part)
        assert stat.kind == kind
        assert stat.size > 0
        assert stat.mtime > 1e9
    for part in ("/B/4", "/B/3/1", "/B/3/0/labels/other", "/tables/other.csv", "/Z/99"):
        assert not ps.exists(uri + part)
    assert check(plate) == []


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_zarr_python_reads_it_through_obstore(rig, version):
    """A store of another hand, and other people's code, see an ordinary OME-Zarr plate."""
    plate = new(f"zarr+s3://{rig.bucket}/p.zarr", ngff_version=version)
    array = noise()
    plate.write_image("B/03", 0, array)
    plate.write_label("B/03", 0, "nuclei", array[:, :1])
    plate.write_image("B/03", 1, array)
    plate.write_image("B/03", 1, array + 5, overwrite=True)
    options = {"endpoint": rig.server.endpoint, "client_options": {"allow_http": True}}
    bucket = obstore.store.S3Store(rig.bucket, prefix="p.zarr", **options)
    for store in (zarr.storage.ObjectStore(bucket, read_only=True), ps.zarr_store(plate.uri)):
        group = zarr.open_group(store, mode="r")
        np.testing.assert_array_equal(group["B/3/0/0"][:], array)
        np.testing.assert_array_equal(group["B/3/0/labels/nuclei/0"][:], array[:, 0])
        attributes = group["B/3/1"].attrs.asdict()
        first = attributes.get("ome", attributes)["multiscales"][0]["datasets"][0]["path"]
        np.testing.assert_array_equal(group["B/3/1"][first][:], array + 5)
        assert {name for name, _ in group["B/3"].members()} == {"0", "1"}


def test_batches_copies_and_moves_work_as_on_disk(uri, store, tmp_path):
    plate = new(uri)
    arrays = [noise(i) for i in range(4)]
    names = [f"{uri}/{well}/{field}" for well in ("A/1", "A/2") for field in (0, 1)]
    ps.save_batch(arrays, names)
    for got, array in zip(ps.load_batch(names), arrays, strict=True):
        np.testing.assert_array_equal(got, array)
    with pytest.raises(AlreadyExistsError):
        ps.save_batch(arrays, names)
    plate.write_table("tables/a/b.csv", [{"n": 1}])
    backend = ps.get_backend("zarr")
    for other in (f"zarr+{store}/copy.zarr", f"zarr://{tmp_path}/copy.zarr"):
        backend.copy(uri, other)
        with pytest.raises(AlreadyExistsError):
            backend.copy(uri, other)
        np.testing.assert_array_equal(ps.load(f"{other}/A/2/1"), arrays[3])
        assert ps.load(f"{other}/tables/a/b.csv")["n"].tolist() == [1]
        assert backend.check_plate(other) == []
    backend.copy(f"{uri}/A/1", f"{uri}/C/1")
    backend.move(f"{uri}/A/2/0", f"{uri}/C/2/5")
    backend.copy(f"{uri}/tables", f"{uri}/more")
    assert ps.exists(f"{uri}/more/a/b.csv")
    assert ps.open_plate(uri).wells == ("A/1", "A/2", "C/1", "C/2")
    assert ps.open_plate(uri)["C/2"].fields == ("5",)
    back = ps.copy(f"zarr://{tmp_path}/copy.zarr", f"zarr+{store}/back.zarr")
    assert back.copied == ("A/1", "A/2")
    assert check(plate) == []


class TestTablesBesideTheArrays(StorageBackendSuite):
    @pytest.fixture
    def rig(self, store):
        uri = f"zarr+{store}/p.zarr"
        ps.create_plate(uri)
        made = Rig(ps.get_backend("zarr"), f"{uri}/tables/root")
        made.symlinks = made.directories = False
        made.suffixes = (".json", ".csv", ".tsv", ".txt")
        return made


def test_a_plate_needs_a_store_and_a_name(store):
    for wrong, error in (
        ("zarr+s3://bucket", URIError),
        ("zarr+nonsense://host/plate/1", KeyError),
        (f"zarr+{store}/none.zarr", NotFoundError),
    ):
        with pytest.raises(error):
            ps.open_plate(wrong)
    ps.create_plate(f"zarr+{store}/p.zarr")
    assert ps.get_backend("zarr").raw_uri(f"zarr+{store}/p.zarr/A/01") == f"{store}/p.zarr/A/1"
    with pytest.raises(UnsupportedError, match="write a file into it"):
        ps.get_backend("zarr").ensure_directory(f"zarr+{store}/p.zarr/tables/a")


def test_a_field_is_replaced_and_what_it_had_is_removed(plate):
    array = noise()
    plate.write_image("B/3", 0, array)
    plate.write_label("B/3", 0, "nuclei", array[:, :1])
    before = set(keys(plate))
    opened, label = (ps.open_plate(plate.uri)["B/3"].image(0) for _ in range(2))
    label = label.label("nuclei")
    np.testing.assert_array_equal(opened.read(), array)
    with pytest.raises(AlreadyExistsError):
        plate.write_image("B/3", 0, array)
    plate.write_image("B/3", 0, array + 1, overwrite=True)
    np.testing.assert_array_equal(opened.read(), array + 1)  # it notices
    assert opened.labels == ()
    with pytest.raises(NotFoundError):
        label.read()
    assert check(plate) == []
    plate.write_well("B/3", {0: array + 2}, {0: {"nuclei": array[:, :1]}}, overwrite=True)
    plate.write_label("B/3", 0, "nuclei", array[:, :1] + 1, overwrite=True)
    np.testing.assert_array_equal(opened.label("nuclei").read(), array[:, :1] + 1)
    assert len(set(keys(plate))) == len(before)
    assert check(plate) == []


def test_a_well_that_is_replaced_whole_loses_its_other_fields(plate):
    plate.write_well("B/3", {0: noise(0), 1: noise(1)})
    plate.write_table("B/3/tables/a.csv", [{"n": 1}])
    plate.write_well("B/3", {2: noise(2)}, overwrite=True)
    assert ps.open_plate(plate.uri)["B/3"].fields == ("2",)
    assert ps.exists(f"{plate.uri}/B/3/tables/a.csv")
    assert not any(key.startswith(("B/3/0", "B/3/1")) for key in keys(plate))
    assert [finding.rule for finding in check(plate)] == ["field-count"]  # an upper bound
    check(plate, repair=True)
    assert check(plate) == []


def test_parts_are_deleted_with_all_that_is_stored_of_them(plate):
    uri = plate.uri
    plate.write_well("B/3", {0: noise(), 1: noise()}, {0: {"nuclei": noise()[:, :1]}})
    plate.write_image("B/4", 0, noise())
    plate.write_table("tables/a.csv", [{"n": 1}])
    ps.delete(f"{uri}/B/3/0/labels/nuclei")
    assert ps.open_plate(uri)["B/3"].image(0).labels == ()
    ps.delete(f"{uri}/B/3/0")
    assert ps.open_plate(uri)["B/3"].fields == ("1",)
    ps.delete(f"{uri}/B/3/1")
    assert ps.open_plate(uri).wells == ("B/4",)
    assert {key for key in keys(plate) if key.startswith("B/3")} == {"B/3/zarr.json"}
    plate.write_image("B/3", 0, noise())
    assert "B/3/0/0/zarr.json" in keys(plate)  # the usual names again
    with pytest.raises(UnsupportedError, match="delete_all"):
        ps.get_backend("zarr").delete(f"{uri}/B")
    ps.delete(f"{uri}/tables/a.csv")
    ps.delete(f"{uri}/B")
    assert ps.open_plate(uri).wells == ()
    assert check(plate) == []
    plate.write_image("B/3", 0, noise(shape=(1, 2, 1, 8, 8)))  # an empty plate takes any shape
    ps.delete(uri)
    assert not ps.exists(uri)
    assert keys(plate) == {}
    with pytest.raises(NotFoundError):
        ps.delete(uri)


def test_large_shards_are_sent_too(plate, monkeypatch):
    monkeypatch.setattr(uploads, "_LARGE", 1000)
    plate.write_image("B/3", 0, noise())
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/3/0"), noise())


def test_fields_look_new_to_workflow_engines_when_they_are_touched(plate):
    plate.write_image("B/3", 0, noise())
    plate.write_label("B/3", 0, "nuclei", noise()[:, :1])
    before = keys(plate)["B/3/0/zarr.json"].etag
    ps.get_backend("zarr").touch(f"{plate.uri}/B/3/0")
    assert keys(plate)["B/3/0/zarr.json"].etag != before
    assert check(plate) == []


def test_a_damaged_shard_raises_and_names_its_field(plate):
    plate.write_image("B/3", 0, noise())
    shard = f"{plate.uri.removeprefix('zarr+')}/B/3/0/0/c/0/0/0/0/0"
    backend = ps.get_backend(parse_uri(shard).scheme)
    content = bytearray(backend.read_bytes(shard))
    content[100] ^= 1
    backend.put(bytes(content), shard, overwrite=True)
    with pytest.raises(CorruptDataError, match=r"/B/3/0 cannot be read: .*CRC-32C"):
        ps.load(f"{plate.uri}/B/3/0")


def test_a_plane_costs_its_chunk_the_shards_index_and_the_metadata_on_its_path(rig):
    array = noise(shape=(2, 3, 5, 256, 256))
    plate = new(f"zarr+s3://{rig.bucket}/p.zarr", channels=["a", "b", "c"])
    for well in ("A/1", "B/2", "C/3"):
        plate.write_image(well, 0, array)
    stored = keys(plate)
    shard = stored["B/2/0/0/c/0/0/0/0/0"].size
    metadata = ("zarr.json", "B/2/zarr.json", "B/2/0/zarr.json", "B/2/0/0/zarr.json")
    rig.server.reset()
    plane = ps.load(f"{plate.uri}/B/2/0?t=1&c=2&z=4")
    np.testing.assert_array_equal(plane, array[1, 2, 4])
    assert rig.server.requests["GET"] == 6  # four documents, an index, a chunk
    assert rig.server.requests["HEAD"] <= 6
    assert set(rig.server.requests) == {"GET", "HEAD"}
    index = 16 * 2 * 3 * 5 + 4
    most = shard / (2 * 3 * 5) * 1.1 + index + sum(stored[name].size for name in metadata)
    assert rig.server.sent <= most
    image = ps.open_plate(plate.uri)["B/2"].image(0)
    image.plane()
    rig.server.reset()
    image.plane(t=1, c=2, z=4)
    assert rig.server.requests["GET"] == 2
    assert rig.server.sent <= shard / (2 * 3 * 5) * 1.1 + index
    rig.server.reset()
    image.read()
    assert rig.server.requests["GET"] == 2  # adjacent chunks are fetched together
    assert rig.server.sent <= shard + index


def test_a_listing_of_a_plate_is_one_listing_of_the_bucket(rig):
    plate = new(f"zarr+s3://{rig.bucket}/p.zarr")
    plate.write_well("A/1", {0: noise(), 1: noise()})
    plate.write_image("B/1", 0, noise())
    rig.server.reset()
    assert len(ps.list_files(plate.uri, recursive=True)) == 3
    assert rig.server.requests["LIST"] == 1


def test_acquisitions_provenance_and_tables_for_ngio_are_kept(uri, store, tmp_path):
    plate = new(uri, acquisitions=["first", "second"])
    made = ps.Provenance("blur", "1.0", {"sigma": 2})
    plate.write_well("B/3", {0: noise(), 1: noise()}, acquisition={0: 0, 1: 1}, provenance=made)
    plate.write_image("B/3", 1, noise(1), overwrite=True)
    well = ps.open_plate(uri)["B/3"]
    assert well.acquisitions == {"0": 0, "1": 1}
    assert well.provenance(0) == made
    plate.write_table("tables/counts.csv", [{"n": 1}])
    plate.write_table("B/3/0/tables/cells.csv", [{"n": 2}])
    assert ps.list_files(f"{uri}/B/3/0/tables") == [f"{uri}/B/3/0/tables/cells.csv"]
    group = zarr.open_group(ps.zarr_store(uri), mode="r")
    assert group["tables"].attrs["tables"] == ["counts"]
    assert group["B/3/0/tables/cells"].attrs["backend"] == "csv"
    root = uri.removeprefix("zarr+")
    backend = ps.get_backend(parse_uri(root).scheme)
    assert backend.read_bytes(f"{root}/tables/counts/table.csv") == b"n\n1\n"
    assert check(plate) == []
    backend.put(b"n\n9\n", f"{root}/tables/counts/table.csv", overwrite=True)
    assert [finding.rule for finding in check(plate, repair=True)] == ["table"]
    assert check(plate) == []
    ps.delete(f"{uri}/tables/counts.csv")
    assert [key for key in keys(plate) if key.startswith("tables/")] == ["tables/zarr.json"]
    ps.copy(uri, f"zarr://{tmp_path}/copy.zarr")
    again = ps.open_plate(f"zarr://{tmp_path}/copy.zarr")
    assert again["B/3"].acquisitions == {"0": 0, "1": 1}
    assert again["B/3"].provenance(0) == made
