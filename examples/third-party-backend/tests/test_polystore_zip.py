"""The suite that Polystore Flows ships, over a rig of ours."""

import zipfile

import pytest
from polystore_zip import ZipBackend

import polystore_flows as ps
from polystore_flows.backends.codecs import encode
from polystore_flows.errors import CorruptDataError
from polystore_flows.testing.contract_suites import ReadOnlySuite
from polystore_flows.testing.rigs import Rig, sample


class ZipRig(Rig):
    """An archive with a file of each kind."""

    def __init__(self, folder):
        super().__init__(ZipBackend(), f"zip://{folder}/a.zip/files")
        self.archive = folder / "a.zip"

    def stored(self):
        files = {
            self.path(f"file{i}{suffix}"): sample(suffix, i)
            for i, suffix in enumerate((*self.suffixes, self.suffixes[0]))
        }
        if not self.archive.exists():
            with zipfile.ZipFile(self.archive, "w") as archive:
                for identifier, data in files.items():
                    name = f"files/{identifier.rpartition('/')[2]}"
                    archive.writestr(name, encode(data, name, where=identifier))
        return files


class TestZip(ReadOnlySuite):
    @pytest.fixture
    def rig(self, tmp_path):
        with ZipRig(tmp_path) as rig:
            yield rig


def test_it_is_found_by_its_scheme(tmp_path):
    """Through the entry point: nothing imports the backend."""
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        archive.writestr("tables/counts.csv", "well,n\nA/1,5\n")
    uri = f"zip://{tmp_path}/run.zip/tables/counts.csv"
    assert ps.load(uri)["n"].tolist() == [5]
    ps.copy(uri, f"disk:{tmp_path}/counts.csv")
    assert (tmp_path / "counts.csv").read_text() == "well,n\nA/1,5\n"


def test_what_is_no_archive_is_told(tmp_path):
    (tmp_path / "a.zip").write_text("text")
    with pytest.raises(CorruptDataError, match="is no ZIP archive"):
        ps.load(f"zip://{tmp_path}/a.zip/x.txt")
