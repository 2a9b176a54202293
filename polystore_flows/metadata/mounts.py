"""Whether a network file system is mounted so that its locks stay within this host."""

from __future__ import annotations

import os
from pathlib import Path

from polystore_flows.errors import FileLockError

MOUNTS = Path("/proc/self/mountinfo")

_LOCAL = {"nolock", "local_lock=all", "local_lock=flock", "nobrl", "localflock"}
"""Options of NFS, SMB and Lustre under which ``flock`` never reaches the server."""


def check(path: Path, device: int) -> None:
    """Refuse a mount whose locks other hosts do not see.

    Two open files of this host do exclude each other there, so that trying them tells nothing.
    Only Linux says how a file system is mounted; elsewhere nothing is refused.

    Args:
        path: The lock file, for the message.
        device: The number of its file system, as `os.stat` gives it.

    Raises:
        FileLockError: The mount is such a one.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        # id, parent, device, root, mount point, options, tags - kind, source, its own options
        mount, _, own = line.partition(" - ")
        fields = mount.split()
        local = _LOCAL.intersection(own.split()[-1].split(","))
        if local and fields[2] == number:
            raise FileLockError(
                f"{path} cannot be locked: {fields[4]} is mounted with {','.join(sorted(local))}, "
                "so other hosts would not see the lock; mount it without that or work elsewhere"
            )
