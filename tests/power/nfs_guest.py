"""A server of NFS and two clients, hosts of their own in all but the kernel."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import socket
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nfs_work
import rpc_guest
from guest import DISK, Channel, libc, mount
from rpc_guest import DOMAIN

MODULES = Path("/usr/lib/uml/modules", platform.release())
NFSD, CACHES = Path("/proc/fs/nfsd"), Path("/proc/net/rpc")
RECOVERY = Path("/dev/shm/recovery")
FLAGS = 0x2000 | 0x400 | 0x2  # fsid=0, no_subtree_check, insecure; synchronous, root is root
FOREVER = 2**31 - 1
OWN = 0x00020000 | 0x04000000 | 0x08000000 | 0x40000000  # mounts, host name, IPC, network
FINIT_MODULE = 313  # on x86-64

_loaded: set[str] = set()


def load(module: str) -> None:
    """Load a module of the kernel and what it needs."""
    lines = (MODULES / "modules.dep").read_text().splitlines()
    table = dict(line.split(":", 1) for line in lines)
    path = next((p for p in table if p.endswith(f"/{module}.ko")), None)
    if path is None:
        raise FileNotFoundError(f"the kernel has no module {module}")
    for name in [*reversed(table[path].split()), path]:
        if name in _loaded:
            continue
        _loaded.add(name)
        with (MODULES / name).open("rb") as file:
            if libc.syscall(FINIT_MODULE, file.fileno(), b"", 0):
                number = ctypes.get_errno()
                raise OSError(number, f"{name}: {os.strerror(number)}")


def tell(file: Path, text: str) -> None:
    """Write one line to a file of the kernel, in one piece."""
    fd = os.open(file, os.O_WRONLY)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def serve(clients: int, version: str) -> None:
    """Export `DISK` to the clients."""
    for module in ("nfsd", "nfsv4", "nfsv3", "veth"):
        load(module)
    mount("/dev/ubda", DISK, "ext4")
    ip("link set lo up")
    mount("nfsd", NFSD, "nfsd")
    if version == "3":
        rpc_guest.start(DISK)
    tell(NFSD / "versions", f"-2 {'+' if version == '3' else '-'}3 +4 +4.0 +4.1 +4.2")
    RECOVERY.mkdir()
    tell(NFSD / "nfsv4recoverydir", str(RECOVERY))
    tell(NFSD / "nfsv4leasetime", "10")
    tell(NFSD / "nfsv4gracetime", "10")
    # What exportfs and mountd would say when they are asked, said beforehand.
    for client in range(clients):
        tell(CACHES / "auth.unix.ip/channel", f"nfsd 10.0.{client}.2 {FOREVER} {DOMAIN}")
    tell(CACHES / "nfsd.export/channel", f"{DOMAIN} {DISK} {FOREVER} {FLAGS} 65534 65534 0")
    tell(CACHES / "nfsd.fh/channel", f"{DOMAIN} 1 \\x00000000 {FOREVER} {DISK}")
    tell(NFSD / "threads", "8")
    tell(NFSD / "v4_end_grace", "Y")


class Client:
    """A process with its own network, mounts, host name and memory files: a host, to NFS.

    Args:
        number: 0, 1 …
        options: How it mounts the server's folder.
        work: What it does with each message; gets its folder and the message.
    """

    def __init__(self, number: int, options: str, work: Callable[[Path, Any], Any]) -> None:
        self._number = number
        here, there = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            here.close()
            self._live(there, options, work)
            os._exit(0)
        there.close()
        self._talk = here.makefile("rw")
        here.close()
        self._talk.readline()  # now it has a network of its own
        ip(f"link add s{number} type veth peer name c{number} netns {pid}")
        ip(f"addr add 10.0.{number}.1/24 dev s{number}")
        ip(f"link set s{number} up")
        self.ask(None)
        self.said = self.answer()

    def ask(self, message: Any) -> None:
        print(json.dumps(message), file=self._talk, flush=True)

    def answer(self) -> Any:
        said = json.loads(self._talk.readline())
        if isinstance(said, dict) and "failed" in said:
            raise RuntimeError(said["failed"])
        return said

    def _live(self, line: socket.socket, options: str, work: Callable[[Path, Any], Any]) -> None:
        talk = line.makefile("rw")
        line.close()
        try:
            if libc.unshare(OWN):
                raise OSError(ctypes.get_errno(), "unshare")
            print("1", file=talk, flush=True)
            talk.readline()
            socket.sethostname(f"client{self._number}")
            ip("link set lo up")
            ip(f"addr add 10.0.{self._number}.2/24 dev c{self._number}")
            ip(f"link set c{self._number} up")
            mount("tmpfs", Path("/dev/shm"), "tmpfs")
            if options.startswith("vers=3"):
                rpc_guest.start()  # where its own lock service can sign in
            server, me = (f"10.0.{self._number}.{end}" for end in (1, 2))
            folder = Path("/dev/shm/plates")
            mount(f"{server}:/", folder, "nfs", f"addr={server},clientaddr={me},{options}")
            said = next(
                line
                for line in Path("/proc/mounts").read_text().splitlines()
                if f" {folder} " in line
            )
            print(json.dumps(said), file=talk, flush=True)
            for message in talk:
                print(json.dumps(work(folder, json.loads(message))), file=talk, flush=True)
        except BaseException:  # noqa: BLE001 - the host must know
            print(json.dumps({"failed": traceback.format_exc()}), file=talk, flush=True)


def run(channel: Channel, what: str, options: str, rounds: str) -> None:
    """Let two clients do `what`, `rounds` times, and report what each said and what came of it.

    Args:
        channel: Where to.
        what: A key of `nfs_work.WORK`.
        options: How both mount; begins with ``vers=``.
        rounds: How often.
    """
    version = options.partition(",")[0].removeprefix("vers=")
    serve(2, version)
    if version == "3":
        options += f",port=2049,mountproto=tcp,mountport={rpc_guest.PORT}"
    clients = [Client(n, options, nfs_work.WORK[what]) for n in range(2)]
    channel.report(mounts=[client.said for client in clients])
    for number in range(int(rounds)):
        began = time.monotonic()
        for client in clients:
            client.ask(number)
        said = [client.answer() for client in clients]
        channel.report(
            said=said,
            seconds=round(time.monotonic() - began, 2),
            **nfs_work.found(DISK, number),
        )
