"""Settings of the plugin: ``storage: provider="polystore", mode="copy"``."""

# No `from __future__ import annotations`: Snakemake makes its options from the types themselves.

from dataclasses import dataclass, field

from snakemake_interface_storage_plugins.settings import StorageProviderSettingsBase

MODES = ("ref", "link", "copy")
"""Checked by the provider: argparse's choices would refuse values with a tag."""


@dataclass
class StorageProviderSettings(StorageProviderSettingsBase):
    """What ``storage:`` takes beside Snakemake's own ``retrieve`` and ``keep_local``.

    None of them is a secret: credentials are found by the object stores themselves, in a profile,
    a session file or a machine's role. What Snakemake reads from an environment variable it shows
    on the command lines of jobs.
    """

    mode: str = field(
        default="ref",
        metadata={
            "help": "How jobs get what a query names. 'ref': plates, wells, fields and labels by "
            "reference, so input[0] is the URI itself, which the job opens; files, folders and "
            "tables as with 'link'. 'link': a symbolic link into the local file system, which a "
            "job must not write through; what lies on an object store is downloaded. 'copy': a "
            "copy that a job may change.",
        },
    )
    cache_seconds: float = field(
        default=30.0,
        metadata={
            "help": "How long it is believed, without asking again, that what was there is there. "
            "Snakemake asks for the inputs of all ready jobs whenever a job ends. What is written "
            "or removed through Snakemake is seen at once.",
        },
    )
    max_clock_skew: float = field(
        default=60.0,
        metadata={
            "help": "Seconds by which the clock of a writer or server may differ from this "
            "machine's before a run ends with an error instead of making things again and again.",
        },
    )
