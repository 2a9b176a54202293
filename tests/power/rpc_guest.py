"""The two small services that NFS 3 needs beside its server: port mapper and mount."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import struct
import time
from pathlib import Path
from typing import Any

DOMAIN = "clients"
"""What the server calls the hosts that may mount."""

PORT = 111
PORT_MAPPER, MOUNT = 100000, 100005


def file_handle(path: Path) -> bytes:
    """What a client of NFS 3 names an exported folder with."""
    fd = os.open("/proc/fs/nfsd/filehandle", os.O_RDWR)
    try:
        os.write(fd, f"{DOMAIN} {path} 64\n".encode())
        return bytes.fromhex(os.read(fd, 500).decode().strip().removeprefix("\\x"))
    finally:
        os.close(fd)


def start(path: Path | None = None) -> None:
    """Answer for ever, to TCP, in a process of its own; `path` can be mounted."""
    if os.fork() == 0:
        _serve(path)
    while not _is_up():
        time.sleep(0.01)


def _serve(path: Path | None) -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while head := self.rfile.read(4):
                    call = self.rfile.read(struct.unpack(">I", head)[0] & 0x7FFFFFFF)
                    reply = _answer(call, path)
                    self.wfile.write(struct.pack(">I", 0x80000000 | len(reply)) + reply)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("0.0.0.0", PORT), Handler) as server:
        server.serve_forever()


def _answer(call: bytes, path: Path | None) -> bytes:
    number, _, _, program, version, procedure = struct.unpack_from(">6I", call)
    accepted = struct.pack(">5I", number, 1, 0, 0, 0)
    if (program, version) == (PORT_MAPPER, 2):
        return accepted + struct.pack(">I", 0) + (struct.pack(">I", 1) if procedure else b"")
    if (program, version) == (MOUNT, 3):
        result: Any = b""
        if procedure == 1 and path is not None:
            handle = file_handle(path)
            padding = bytes(-len(handle) % 4)
            result = struct.pack(">2I", 0, len(handle)) + handle + padding
            result += struct.pack(">2I", 1, 1)  # one kind of security: what the client says
        return accepted + struct.pack(">I", 0) + result
    return accepted + struct.pack(">3I", 2, 2, 3)  # another version


def _is_up() -> bool:
    """Whether somebody answers."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
        return True
    return False
