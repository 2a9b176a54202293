"""Credentials that were given for a bucket lead to it, whatever the environment says."""

from __future__ import annotations

import pickle

import pytest

from polystore_flows.credentials import Credentials, given
from polystore_flows.testing.s3 import CANARY


@pytest.fixture
def seen(rig, monkeypatch):
    """The headers that authorize the requests to the server."""
    headers = []
    serve = rig.server._app

    def listen(environ, start):
        token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
        headers.append((environ.get("HTTP_AUTHORIZATION", "").partition("/")[0], token))
        return serve(environ, start)

    monkeypatch.setattr(rig.server, "_app", listen)
    return headers


def test_given_keys_win_over_those_of_the_environment(rig, seen, monkeypatch):
    """Also over its session token, which obstore would add to keys that it does not belong to."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-the-environment")
    where = f"s3://{rig.bucket}"
    with given({where: Credentials(user="given", secret="given-secret")}):
        assert not rig.backend.exists(f"{where}/a.txt")
    assert not rig.backend.exists(f"{where}/a.txt")
    assert {(who.rpartition("=")[2], token) for who, token in seen} == {
        ("given", None),
        ("someone", "of-the-environment"),
    }


def test_a_given_endpoint_leads_to_the_server(rig, monkeypatch):
    server = rig.server
    for name in server.environment:
        monkeypatch.delenv(name)
    where = f"s3://{rig.bucket}"
    credentials = Credentials("someone", CANARY, endpoint=server.endpoint, allow_http=True)
    with given({where: credentials}):
        rig.backend.save("text", f"{where}/a.txt")
        assert rig.backend.load(f"{where}/a.txt") == "text"
        assert CANARY.encode() not in pickle.dumps(rig.backend)
