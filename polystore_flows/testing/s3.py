"""A real S3 server on the loopback interface, from the package ``moto``, and a rig on it.

The server runs in a thread of the test process; clients may be other processes. It can lose
answers and ignore conditions, and counts requests. Needs ``moto[server]`` and pytest.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from threading import Lock, Thread
from typing import Any, Self
from urllib.request import Request, urlopen

from ..backends.objects.backend import ObjectsBackend
from ..settings import ObjectStoreSettings, get_settings
from .rigs import Rig

CANARY = "canary-secret-that-must-not-be-seen"
"""The secret key that the rig's clients use."""

_CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")


class S3Server:
    """One server; a context manager. All of its knobs can be turned while it runs."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app: Any = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self._working, self._counting = Lock(), Lock()
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self._buckets: list[str] = []
        self.requests: Counter[str] = Counter()
        """Requests by verb since `reset`; a ``GET`` of a listing counts as ``LIST``."""
        self.sent = 0
        """Bytes of objects that were sent since `reset`."""
        self.ignore_conditions = False
        """Write whatever If-Match and If-None-Match say, as some servers do."""
        self.only_unquoted = False
        """Take If-Match without quotes only, as radosgw did."""
        self.lose_every = 0
        """Do what every n-th PUT asks for, then close the connection without an answer."""
        self.refuse = False
        """Answer 403 to everything, with a body that repeats what a real server would."""

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that lead a process to this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": CANARY,
            "POLYSTORE_OBJECTS_TIMEOUT": "20",
        }

    def make_bucket(self) -> str:
        """Make a bucket of a new name."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.put(name)
        self._buckets.append(name)
        return name

    def put(self, path: str, data: bytes = b"") -> None:
        """Put an object as another tool would; its key may end in a slash."""
        with urlopen(Request(f"{self.endpoint}/{path}", data=data, method="PUT")):
            pass

    def reset(self) -> None:
        """Count from zero."""
        with self._counting:
            self.requests.clear()
            self.sent = 0

    def close(self) -> None:
        """Stop it and forget its buckets; the port refuses connections afterwards."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for name in self._buckets:
            self.held(name).buckets.pop(name)

    def held(self, bucket: str) -> Any:
        """moto's own model that holds `bucket`."""
        from moto.s3.models import s3_backends

        models = (model for account in s3_backends.values() for model in account.values())
        return next(model for model in models if bucket in model.buckets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        verb = environ["REQUEST_METHOD"]
        listing = verb == "GET" and "list-type" in environ.get("QUERY_STRING", "")
        with self._counting:
            self.requests["LIST" if listing else verb] += 1
            lost = verb == "PUT" and self.lose_every and not self.requests[verb] % self.lose_every
        if self.ignore_conditions:
            for name in _CONDITIONS:
                environ.pop(name, None)
        if self.refuse:
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [f"<Error><Code>AccessDenied</Code><X>{CANARY}</X></Error>".encode()]
        if self.only_unquoted and environ.get("HTTP_IF_MATCH", "").startswith('"'):
            start("412 Precondition Failed", [("Content-Length", "0")])
            return []
        # It checks a condition and then acts, and shows an object before its metadata is set;
        # real servers do neither.
        with self._working:
            answer: list[bytes] = list(self._app(environ, start))
        if verb == "GET" and not listing:
            with self._counting:
                self.sent += sum(map(len, answer))
        if lost:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer


class ObjectsRig(Rig):
    """The objects backend in a bucket of its own.

    Leads this process to `server` by its environment until it is closed.
    """

    symlinks = False

    def __init__(self, server: S3Server, backend: ObjectsBackend | None = None) -> None:
        self.server, self.bucket = server, server.make_bucket()
        self._before = {name: os.environ.get(name) for name in server.environment}
        os.environ.update(server.environment)
        get_settings.cache_clear()
        super().__init__(backend or ObjectsBackend(), f"s3://{self.bucket}/root")

    def close(self) -> None:
        """Put the environment back."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        get_settings.cache_clear()


def settings_for(server: S3Server) -> ObjectStoreSettings:
    """What `POLYSTORE_OBJECTS` would say of it."""
    return ObjectStoreSettings(endpoint=server.endpoint, region="us-east-1", allow_http=True)
