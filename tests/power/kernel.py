"""A whole Linux kernel as a process of this host, whose power can be cut."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polystore_flows

GUEST = Path(__file__).with_name("guest.py")
PACKAGE = Path(polystore_flows.__file__).parents[1]
MODULES = Path("/usr/lib/uml/modules")
LINUX = shutil.which("linux")
"""The kernel of Debian's package ``user-mode-linux``."""


def missing() -> str | None:
    """Why no kernel can be started here, or None."""
    if sys.platform != "linux":
        return "power cuts need Linux"
    if LINUX is None:
        return "no `linux`; apt-get install user-mode-linux"
    if shutil.which("mkfs.ext4") is None:
        return "no `mkfs.ext4`; apt-get install e2fsprogs"
    return None


def make_disk(path: Path, megabytes: int = 64) -> Path:
    """Make an image with an ext4 as ``mkfs`` makes it."""
    with path.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    return path


class Kernel:
    """One kernel that runs ``guest.py`` as its first process, on the root folder of this host.

    The root folder is read-only there. What the guest reports comes through a pipe that the
    guest's power does not feed: a line that was read here was written before the cut.

    Args:
        *arguments: What the guest gets, without spaces.
        disk: The image that is its disk.
        log: Where the console goes.
        memory: As the kernel takes it.
    """

    def __init__(self, *arguments: object, disk: Path, log: Path, memory: str = "256M") -> None:
        assert LINUX is not None
        read, write = os.pipe()
        command = [
            *("nice", LINUX, f"mem={memory}", "root=/dev/root", "rootfstype=hostfs", "ro"),
            *("con=null", "con0=null,fd:1", "ssl=null", f"ssl0=null,fd:{write}"),
            *(f"ubd0={disk}", f"init={sys.executable}", "quiet", "panic=-1", "--"),
            *("-u", "-W", "error", str(GUEST), str(PACKAGE), *map(str, arguments)),
        ]
        self._log = log
        with log.open("ab") as console:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=[write],
                start_new_session=True,
            )
        os.close(write)
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(read,), daemon=True)
        self._reader.start()

    def _read(self, fd: int) -> None:
        with os.fdopen(fd, "rb") as pipe:
            for line in pipe:
                if line.endswith(b"\n"):
                    self._lines.put(line.decode().strip())
        self._lines.put(None)

    def line(self, timeout: float) -> str | None:
        """The next line that the guest reports; None when it is dead or the time is over."""
        try:
            line = self._lines.get(timeout=max(0, timeout))
        except queue.Empty:
            return None
        if line is None:
            self._lines.put(None)
        return line

    def report(self, timeout: float = 60, line: str | None = None) -> dict[str, Any]:
        """The next report, which must come, or the one that `line` is."""
        line = line or self.line(timeout)
        if line is None:
            raise RuntimeError(f"the kernel reported nothing; its console:\n{self.console()}")
        found: dict[str, Any] = json.loads(line)
        if "failed" in found:
            raise RuntimeError(f"the guest failed: {found['failed']}\n{self.console()}")
        return found

    def console(self) -> str:
        """The last that it said on its console."""
        return self._log.read_text(errors="replace")[-4000:]

    def lines(self, seconds: float) -> Iterator[str]:
        """What it reports until that many seconds are over or it is dead."""
        end = time.monotonic() + seconds
        while (line := self.line(end - time.monotonic())) is not None:
            yield line

    def cut(self) -> None:
        """Cut the power: nothing in the kernel's memory survives."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(20)
        if self._reader.is_alive():
            raise RuntimeError("a part of the kernel lives on after its power was cut")
