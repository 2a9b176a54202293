"""Settings of the plugin: ``storage: provider="polystore", mode="copy"``."""

# No `from __future__ import annotations`: Snakemake makes its options from the types themselves.

from dataclasses import dataclass, field

from snakemake_interface_storage_plugins.settings import StorageProviderSettingsBase

MODES = ("link", "copy")
"""Checked by the provider: argparse's choices would refuse values with a tag."""


@dataclass
class StorageProviderSettings(StorageProviderSettingsBase):
    """What ``storage:`` takes beside Snakemake's own ``retrieve`` and ``keep_local``."""

    mode: str = field(
        default="link",
        metadata={
            "help": "How jobs get files and folders of disk: queries. 'link' makes a symbolic "
            "link, and jobs must not change their inputs in place; 'copy' makes a copy that "
            "they may change. Parts of zarr plates are always copied.",
        },
    )
