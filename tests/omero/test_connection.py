"""Sessions: found, shared, kept out of sight, lost and made again."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.backends.omero import connection as connections
from polystore_flows.backends.omero.backend import OMEROLocalBackend
from polystore_flows.backends.omero.connection import Connection, shared
from polystore_flows.backends.omero.login import Credentials, Login
from polystore_flows.backends.omero.target import parse_target
from polystore_flows.errors import AccessDeniedError, StoreUnavailableError
from polystore_flows.settings import get_settings
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.plates import add_plate
from polystore_flows.testing.omero.server import SECRET

PIXELS = np.arange(1 * 2 * 16 * 4 * 4, dtype=np.uint16).reshape(1, 2, 16, 4, 4)


@pytest.fixture
def plate(server: OmeroServer) -> Iterator[str]:
    uri = server.uri(f"plate/{add_plate(server, {'B/3': [PIXELS]}, channels=('a', 'b'))}")
    yield uri
    shared(parse_target(uri).login).close()


def login(server: OmeroServer, **changes: Any) -> Login:
    return Login(server.host, server.port, tls=False, **changes)


# Logging in


def test_a_session_key_is_joined_and_not_closed(
    server: OmeroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a web login's, say: closing it would throw the user out there."""
    theirs = server.open_session(server.demo)
    theirs.keeps = True
    monkeypatch.delenv("OMERO_PASSWORD")
    monkeypatch.setenv("POLYSTORE_OMERO_SESSION", theirs.uuid)
    connection = Connection(login(server))
    assert connection.live().client.getSessionId() == theirs.uuid
    connection.close()
    assert theirs in server.sessions


def test_the_session_of_omeros_command_line_is_joined(
    server: OmeroServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Written here by OMERO's own code, as ``omero login`` does."""
    from omero.util.sessions import SessionsStore

    theirs = server.open_session(server.demo)
    store = SessionsStore(str(tmp_path))
    properties = {"omero.host": server.host, "omero.port": str(server.port)}
    store.add(server.host, "demo", theirs.uuid, properties)
    store.set_current(server.host, "demo", theirs.uuid, properties)
    monkeypatch.delenv("OMERO_PASSWORD")
    monkeypatch.setenv("OMERO_SESSIONDIR", str(tmp_path))
    connection = Connection(login(server))
    assert connection.live().client.getSessionId() == theirs.uuid
    connection.close()


def test_a_stale_session_file_gives_way_to_user_and_password(
    server: OmeroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYSTORE_OMERO_SESSION", "00000000-0000-0000-0000-000000000000")
    connection = Connection(login(server))
    connection.live()
    connection.close()


def test_without_credentials_all_ways_to_give_them_are_named(
    server: OmeroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMERO_PASSWORD")
    with pytest.raises(
        AccessDeniedError, match=r"omero login.*POLYSTORE_OMERO_SESSION.*OMERO_USER"
    ):
        Connection(login(server)).rows("select p.id from Plate p")


def test_a_backend_may_be_given_credentials(server: OmeroServer, plate: str) -> None:
    wrong = OMEROLocalBackend(credentials=Credentials(user="demo", password="hunter2"))
    with pytest.raises(AccessDeniedError, match="refuses") as caught:
        wrong.connection(plate).rows("select p.id from Plate p")
    assert "hunter2" not in str(caught.value)
    right = OMEROLocalBackend(credentials=Credentials(user="demo", password=SECRET))
    assert right.connection(plate).rows("select p.id from Plate p")
    right.connection(plate).close()


def test_encryption_is_the_default(server: OmeroServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback server speaks plain TCP, so a default client must not get through to it."""
    monkeypatch.delenv("POLYSTORE_OMERO_TLS")
    get_settings.cache_clear()
    assert parse_target(server.uri("plate/1")).login.tls
    with pytest.raises(StoreUnavailableError, match="POLYSTORE_OMERO_TLS"):
        ps.open_plate(server.uri("plate/1"))


# One session a process


def test_threads_share_one_session(server: OmeroServer, plate: str) -> None:
    shared(parse_target(plate).login).close()
    before = len(server.sessions)
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda z: ps.load(f"{plate}/B/3/0?c=0&t=0&z={z}"), range(16)))
    for z, plane in enumerate(loaded):
        np.testing.assert_array_equal(plane, PIXELS[0, 0, z])
    assert len(server.sessions) == before + 1


_FORKS = """
import multiprocessing, sys, warnings

import polystore_flows as ps
from polystore_flows.backends.omero.connection import shared
from polystore_flows.backends.omero.target import parse_target

uri = sys.argv[1]

def child(out):
    out.put((int(ps.load(f"{uri}/B/3/0?c=1&t=0&z=3").sum()), session()))

def session():
    return shared(parse_target(uri).login).live().client.getSessionId()

warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
ps.load(f"{uri}/B/3/0")
before, context = session(), multiprocessing.get_context("fork")
for _ in range(2):
    results = context.Queue()
    process = context.Process(target=child, args=(results,))
    process.start()
    pixels, own = results.get(timeout=60)
    print(pixels)
    assert own != before
    process.join(60)
    assert process.exitcode == 0
assert ps.load(f"{uri}/B/3/0?c=0&t=0&z=0").shape == (4, 4)
assert session() == before
"""


def test_a_forked_child_makes_its_own_session_and_leaves_its_parents(
    server: OmeroServer, plate: str
) -> None:
    """In a process of its own: a fork of one in which Prefect has run does not end well."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKS, plate], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(PIXELS[0, 1, 3].sum())] * 2


def test_sessions_end_with_their_process(server: OmeroServer, plate: str) -> None:
    before = {session.uuid for session in server.sessions}
    code = f"import polystore_flows as ps; print(len(ps.open_plate({plate!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "1"
    assert {session.uuid for session in server.sessions} <= before


# Out of sight


def test_nothing_that_is_printed_pickled_or_logged_holds_a_secret(
    server: OmeroServer,
    plate: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is that of an expired session, which names the session's key on the server."""
    monkeypatch.setattr(connections, "TRIES", 1)
    caplog.set_level(logging.DEBUG)
    backend = ps.get_backend("omero")
    opened = ps.open_plate(plate)
    ps.load(f"{plate}/B/3/0")
    connection = shared(parse_target(plate).login)
    key = connection.live().client.getSessionId()
    server.expire(key)
    seen = [repr(x) + str(x) for x in (backend, opened, connection, connection.login)]
    seen += [pickle.dumps(x).decode("latin-1") for x in (backend, connection)]
    with pytest.raises(StoreUnavailableError) as caught:
        connection.run(lambda live: live.service("getQueryService").get("Plate", 1), repeat=False)
    seen += [str(caught.value), repr(caught.value.__cause__), caplog.text]
    for text in seen:
        assert SECRET not in text
        assert key not in text


def test_credentials_are_not_pickled() -> None:
    with pytest.raises(TypeError, match="environment"):
        pickle.dumps(Credentials(session="key"))
    assert "key" not in repr(Credentials(session="key", user="u", password="key"))


def test_a_pickled_backend_works_in_another_process(server: OmeroServer, plate: str) -> None:
    data = pickle.dumps(ps.get_backend("omero"))
    code = textwrap.dedent(
        f"""
        import pickle
        backend = pickle.loads({data!r})
        print(backend.load({plate!r} + "/B/3/0?c=0&t=0&z=1").sum())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(done.stdout) == PIXELS[0, 0, 1].sum()


# Lost and made again


def test_work_goes_on_after_a_session_expired(server: OmeroServer, plate: str) -> None:
    opened = ps.open_plate(plate)
    opened["B/3"].image(0).plane()
    server.expire()
    np.testing.assert_array_equal(opened["B/3"].image(0).read(), PIXELS)


def test_a_write_after_a_session_expired_is_done_once(server: OmeroServer, plate: str) -> None:
    """It was refused before it was carried out, so sending it again is safe."""
    ps.open_plate(plate)
    server.expire()
    ps.save({"a": 1}, f"{plate}/B/03/after.json")
    server.expire()
    assert ps.load(f"{plate}/B/03/after.json") == {"a": 1}
    files = [row for row in server.store.all("OriginalFile") if row.fields["name"] == "after.json"]
    assert len(files) == 1


@pytest.mark.parametrize("every", [13, 17, 29])  # logging in alone takes some six calls
def test_no_plane_is_lost_when_connections_drop(
    server: OmeroServer, plate: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come is kept, the rest asked for again; none is zero."""
    monkeypatch.setattr(connections, "PAUSE", 0.01)
    image = ps.open_plate(plate)["B/3"].image(0)
    server.drop_every = every
    np.testing.assert_array_equal(image.read(), PIXELS)
    server.drop_every = 0


def test_a_write_is_not_sent_twice(server: OmeroServer, plate: str) -> None:
    """Its answer was lost: whether it happened is not known, so the caller is told."""
    ps.open_plate(plate)
    connection = shared(parse_target(plate).login)
    connection.live().service("getUpdateService")
    server.reset()
    server.drop_every = 1
    with pytest.raises(StoreUnavailableError):
        connection.save([], 3, plate)
    server.drop_every = 0
    assert server.calls["Update.saveAndReturnArray"] == 1


@pytest.mark.slow
def test_a_server_that_answers_after_five_seconds_is_waited_for(
    server: OmeroServer, plate: str
) -> None:
    image = ps.open_plate(plate)["B/3"].image(0)
    with server.slow(5):
        np.testing.assert_array_equal(image.plane(z=2), PIXELS[0, 0, 2])


def test_a_server_that_answers_too_late_is_told_in_one_line(
    server: OmeroServer, plate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYSTORE_OMERO_TIMEOUT", "0.5")
    monkeypatch.setattr(connections, "TRIES", 1)
    get_settings.cache_clear()
    shared(parse_target(plate).login).close()
    shared(parse_target(plate).login).live()
    with (
        server.slow(3),
        pytest.raises(StoreUnavailableError, match="POLYSTORE_OMERO_TIMEOUT") as caught,
    ):
        shared(parse_target(plate).login).rows("select p.id from Plate p")
    assert "\n" not in str(caught.value)
    time.sleep(3)  # what was asked for is still answered, and must not disturb other tests


def test_a_server_that_is_gone_is_told_in_one_line(
    server: OmeroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PAUSE", 0.01)
    with OmeroServer() as short:
        uri = short.uri(f"plate/{add_plate(short, {'B/3': [PIXELS]}, channels=('a', 'b'))}")
        opened = ps.open_plate(uri)
        opened["B/3"].image(0).plane()
    for act in (lambda: opened["B/3"].image(0).read(), lambda: ps.load(f"{uri}/B/3/0?z=1")):
        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1") as caught:
            act()
        assert "\n" not in str(caught.value)


def test_a_port_where_nothing_listens_is_told_in_one_line(server: OmeroServer) -> None:
    with pytest.raises(StoreUnavailableError, match="check host"):
        ps.open_plate("omero://127.0.0.1:1/plate/1")
