"""An OMERO server to try things on: found, reached, or started with docker compose."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Self

from ...errors import AccessDeniedError, MissingDependencyError, StoreUnavailableError
from .connection import Connection
from .login import DEFAULT_PORT, Credentials, Login

PROJECT = "polystore-omero"
"""Name of the compose project, so that `stop` finds what `start_via_docker_compose` started."""


class OMEROInstanceManager:
    """One server; a context manager that starts it if it does not run, and stops what it started.

    Args:
        host, port: where it is, or is to be.
        user, password: by default as ``login.find_credentials`` finds them. A server that is
            started gets ``OMERO_ROOT_PASSWORD`` as the password of ``root``; there is no default.
        tls: whether to encrypt; the server's own port wants it.
        compose_file: instead of the one that the package ships.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = DEFAULT_PORT,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: bool = True,
        compose_file: Path | None = None,
    ) -> None:
        self.login = Login(host, port, user, tls=tls)
        self._credentials = Credentials(user=user, password=password) if password else None
        self._compose_file = compose_file
        self._connection: Connection | None = None
        self._started = False

    def is_running(self) -> bool:
        """Whether something listens on the server's port."""
        try:
            socket.create_connection((self.login.host, self.login.port), timeout=2).close()
        except OSError:
            return False
        return True

    def connect(self, timeout: float = 60) -> None:
        """Log in, trying again until the server is up.

        Raises:
            AccessDeniedError: it refuses the credentials, or there are none.
            StoreUnavailableError: it did not come up in `timeout` seconds.
        """
        if self._connection is None:
            self._connection = Connection(self.login, self._credentials)
        deadline = time.monotonic() + timeout
        while True:
            try:
                if self.is_running() or time.monotonic() > deadline:
                    self._connection.run(lambda live: live.factory.keepAlive(None))
                    return
            except AccessDeniedError:
                raise
            except StoreUnavailableError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(min(1.0, timeout / 10))

    def get_connection(self) -> Any:
        """OMERO's own ``BlitzGateway`` on our session, which stays ours to close."""
        from omero.gateway import BlitzGateway

        self.connect()
        assert self._connection is not None
        return BlitzGateway(client_obj=self._connection.live().client)

    def start_via_docker_compose(self) -> None:
        """Start the server and its database; returns before they are ready.

        Raises:
            MissingDependencyError: docker or its compose plugin is not installed.
            AccessDeniedError: ``OMERO_ROOT_PASSWORD`` is not set.
            StoreUnavailableError: docker cannot start them.
        """
        if not os.environ.get("OMERO_ROOT_PASSWORD"):
            raise AccessDeniedError(
                "set OMERO_ROOT_PASSWORD to the password that the new server's root is to have"
            )
        self._compose("up", "--detach")
        self._started = True

    def wait_for_ready(self, timeout: float = 300) -> None:
        """Wait until one can log in; a new server takes minutes. Raises as `connect`."""
        self.connect(timeout)

    def stop(self) -> None:
        """Stop the server that `start_via_docker_compose` started; its data stays."""
        self.close()
        self._compose("down")
        self._started = False

    def close(self) -> None:
        """End our session."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        if not self.is_running():
            self.start_via_docker_compose()
        self.wait_for_ready()
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            self.stop()
        else:
            self.close()

    def _compose(self, *arguments: str) -> None:
        docker = shutil.which("docker")
        if docker is None:
            raise MissingDependencyError(
                f"{self.login}: docker is not installed; install it, or start an OMERO server "
                "yourself, or try 'polystore-flows omero dev-server', which needs none"
            )
        shipped = files(__package__).joinpath("compose.yaml")
        with as_file(shipped) as path:
            file = self._compose_file or path
            command = [docker, "compose", "--project-name", PROJECT, "--file", str(file)]
            environment = {**os.environ, "POLYSTORE_OMERO_PORT": str(self.login.port)}
            done = subprocess.run(
                [*command, *arguments], capture_output=True, text=True, env=environment
            )
        if done.returncode:
            told = " ".join((done.stderr or done.stdout).split())[:300]
            if "compose" in told and "unknown" in told:
                raise MissingDependencyError(
                    f"{self.login}: docker has no compose plugin; install docker-compose-plugin"
                )
            raise StoreUnavailableError(f"{self.login}: docker compose failed: {told}")
