"""Snakemake imports every plugin at every start."""

from __future__ import annotations

import subprocess
import sys

import polystore_flows as ps


def test_importing_the_plugin_loads_nothing_heavy():
    code = (
        "import sys, snakemake_storage_plugin_polystore as p\n"
        "assert p.StorageProvider.is_valid_query('zarr:///d/p.zarr/{well}/0')\n"
        "heavy = {'zarr', 'numpy', 'pandas', 'prefect', 'tifffile', 'polystore_flows.flows'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_asking_what_a_plate_holds_loads_nothing_heavy(tmp_path):
    """A dry run asks no more than this."""
    ps.create_plate(f"zarr://{tmp_path}/p.zarr", layout=96)
    code = (
        "import sys\n"
        "from polystore_flows.registry import plate_store_for as store\n"
        "assert store(sys.argv[1]).survey(sys.argv[1], 'image') == {}\n"
        "heavy = {'zarr', 'numpy', 'pandas', 'numcodecs', 'pydantic_settings'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, f"zarr://{tmp_path}/p.zarr"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_snakemake_discovers_the_plugin_and_its_settings():
    from snakemake_interface_storage_plugins.registry import StoragePluginRegistry

    plugin = StoragePluginRegistry().get_plugin("polystore")
    assert plugin.is_read_write()
    assert plugin.storage_provider.get_storage_object_cls() is plugin.storage_object
    for setting in plugin.get_settings_info():
        assert setting["help"]
        assert isinstance(setting["default"], str | float | int | None)
