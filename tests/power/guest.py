"""The first process of a kernel that will lose its power: prepares it and runs one role.

The arguments are the folder of the package, the role, and what that role takes.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
import tty
from pathlib import Path
from typing import Any

POWER_OFF = 0x4321FEDC
DISK = Path("/dev/shm/disk")  # in the memory of the guest: nothing can be made elsewhere

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str, options: str = "", flags: int = 0) -> None:
    """Mount a file system; the folder is made."""
    target.mkdir(exist_ok=True, parents=True)
    arguments = (source.encode(), bytes(target), kind.encode(), flags, options.encode() or None)
    if libc.mount(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} {target} {kind} {options}: {os.strerror(number)}")


class Channel:
    """The line to the host, which survives the power cut."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._fd)

    def say(self, line: str) -> None:
        os.write(self._fd, f"{line}\n".encode())

    def report(self, **found: Any) -> None:
        # A terminal takes 4095 bytes at once, and other processes may speak in between.
        text = json.dumps(found).encode() + b"\n"
        while text:
            text = text[os.write(self._fd, text) :]


def main() -> None:
    mount("proc", Path("/proc"), "proc")
    mount("sysfs", Path("/sys"), "sysfs")
    mount("tmpfs", Path("/dev/shm"), "tmpfs")
    os.environ.update(TMPDIR="/dev/shm", PATH="/usr/sbin:/usr/bin:/sbin:/bin")
    channel = Channel()
    try:
        # The kernel adds an option of its own at the end.
        package, role, *arguments = [w for w in sys.argv[1:] if not w.startswith("console=")]
        sys.path.insert(0, package)
        if role == "nfs":
            import nfs_guest

            nfs_guest.run(channel, *arguments)
        else:
            import cut_guest

            cut_guest.run(channel, *arguments)
    except BaseException:  # noqa: BLE001 - the host must know, and this process may not end
        channel.report(failed=traceback.format_exc())
    libc.reboot(POWER_OFF)


if __name__ == "__main__":
    main()
