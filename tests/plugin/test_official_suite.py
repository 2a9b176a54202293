"""Snakemake's own suite for storage plugins, unmodified."""

from __future__ import annotations

from pathlib import Path

import pytest
from snakemake_interface_storage_plugins.tests import TestStorageBase
from snakemake_storage_plugin_polystore import StorageProvider, StorageProviderSettings

import polystore_flows as ps


class _Suite(TestStorageBase):
    __test__ = False
    touch = True

    def get_storage_provider_cls(self) -> type[StorageProvider]:
        return StorageProvider


class TestDisk(_Suite):
    """Files and folders of this machine."""

    __test__ = True
    files_only = False

    def get_query(self, tmp_path: Path) -> str:
        return f"disk://{tmp_path}/store/test.txt"

    def get_query_not_existing(self, tmp_path: Path) -> str:
        return f"disk://{tmp_path}/store/missing.txt"


class TestDiskByCopy(TestDisk):
    """The same with copies in place of links."""

    def get_storage_provider_settings(self) -> StorageProviderSettings:
        return StorageProviderSettings(mode="copy")


class TestObjects(_Suite):
    """Objects and folders of objects on a local S3 server."""

    __test__ = True
    files_only = False

    @pytest.fixture(autouse=True)
    def _bucket(self, bucket: str) -> None:
        self.root = bucket

    def get_query(self, tmp_path: Path) -> str:
        return f"{self.root}/test.txt"

    def get_query_not_existing(self, tmp_path: Path) -> str:
        return f"{self.root}/missing.txt"


class TestZarr(_Suite):
    """A plain text file beside the arrays of a plate."""

    __test__ = True

    def get_query(self, tmp_path: Path) -> str:
        plate = f"zarr://{tmp_path}/p.zarr"
        ps.create_plate(plate, exist_ok=True)
        return f"{plate}/tables/test.txt"

    def get_query_not_existing(self, tmp_path: Path) -> str:
        return f"zarr://{tmp_path}/p.zarr/tables/missing.txt"
