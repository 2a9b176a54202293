"""A Prefect server as a facility starts it, and what runs beside it."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.request import urlopen

T = TypeVar("T")


@dataclass
class Server:
    """A started server; `env` leads processes to it."""

    url: str
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.home / "prefect.db"

    def run(self, *command: str, cwd: Path | None = None, timeout: float = 300) -> str:
        """The output of a command that must succeed."""
        done = subprocess.run(
            command, env=self.env, cwd=cwd, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def beside(self, *command: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
        """A command that runs until the block is left; its output goes to a file in `home`."""
        log = self.home / f"{Path(command[-1]).name}-{time.monotonic_ns()}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                command, env=self.env, cwd=cwd, stdout=file, stderr=file, text=True
            )
            try:
                yield process
            except BaseException as error:  # a failure here is often explained there
                error.add_note(f"{command} wrote:\n{log.read_text()[-3000:]}")
                raise
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextmanager
def start_server(
    home: Path, interpreter: str = sys.executable, **settings: str
) -> Iterator[Server]:
    """``prefect server start`` on a free port of this host."""
    port = _free_port()
    home.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}/api"
    env = {name: v for name, v in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        **settings,
    }
    server = Server(url, home, env)
    command = [interpreter, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    with server.beside(*command, "--port", str(port)) as process:

        def healthy() -> bool:
            assert process.poll() is None, "the server ended; see its log in " + str(home)
            try:
                with urlopen(f"{url}/health", timeout=5) as answer:
                    return bool(answer.status == 200)
            except (URLError, OSError):
                return False

        wait_for(healthy, 300)
        yield server


def _free_port() -> int:
    """A port below those that the kernel gives to whoever connects, or asks for any."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(given.read_text().split()[0]) if given.exists() else 49152
    while True:
        port = random.randrange(lowest // 2, lowest)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(question: Callable[[], T], seconds: float = 120) -> T:
    """The first answer that is true."""
    end = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"no answer within {seconds} s")
        time.sleep(0.3)


def python(*words: str) -> list[str]:
    """A command of this Python."""
    return [sys.executable, *words]


def counted(states: list[Any]) -> dict[str, int]:
    """How often each state occurs."""
    names = [str(state) for state in states]
    return {name: names.count(name) for name in sorted(set(names))}
