"""Backend URIs: every form is understood, none leaves its root, and none shows a secret."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from polystore_flows.errors import URIError
from polystore_flows.uri import BackendURI, parse_uri, redact


@pytest.mark.parametrize(
    ("text", "scheme", "authority", "path"),
    [
        ("disk:///raw/plate1", "disk", "", "/raw/plate1"),
        ("file:///raw/plate1", "disk", "", "/raw/plate1"),
        ("FILE:///raw/plate1", "disk", "", "/raw/plate1"),
        ("disk:relative/dir", "disk", "", "relative/dir"),
        ("disk:/raw/plate1", "disk", "", "/raw/plate1"),
        ("disk:///", "disk", "", "/"),
        ("memory://name/a/b", "memory", "name", "/a/b"),
        ("memory://name", "memory", "name", ""),
        ("zarr:///data/p.zarr", "zarr", "", "/data/p.zarr"),
        ("zarr:relative/p.zarr", "zarr", "", "relative/p.zarr"),
        ("zarr+file:///data/p.zarr", "zarr", "", "/data/p.zarr"),
        ("zarr+s3://bucket/p.zarr", "zarr+s3", "bucket", "/p.zarr"),
        ("zarr+memory://name/p.zarr", "zarr+memory", "name", "/p.zarr"),
        ("s3://bucket/key", "s3", "bucket", "/key"),
        ("gs://bucket/key", "gs", "bucket", "/key"),
        ("az://container/key", "az", "container", "/key"),
        ("omero://host:4064/plate/123", "omero", "host:4064", "/plate/123"),
        ("omero_local://host/plate/123", "omero", "host", "/plate/123"),
        ("/raw/plate1", "disk", "", "/raw/plate1"),
        ("raw/plate1", "disk", "", "raw/plate1"),
        ("/data/p.zarr/B/03", "zarr", "", "/data/p.zarr/B/03"),
        (Path("/raw/plate1"), "disk", "", "/raw/plate1"),
        (Path("a:b/plate1"), "disk", "", "a:b/plate1"),
        ("disk:///a//b/./c/", "disk", "", "/a/b/c"),
        ("disk:../plate1", "disk", "", "../plate1"),
        ("zarr:///{plate}.zarr/{well}", "zarr", "", "/{plate}.zarr/{well}"),
        ("disk:///a b/#1 100%/µ", "disk", "", "/a b/#1 100%/µ"),
        ("disk:///a%20b", "disk", "", "/a%20b"),
        ("mine://host/x", "mine", "host", "/x"),
    ],
)
def test_every_form_of_a_uri_is_understood(text, scheme, authority, path):
    uri = parse_uri(text)
    assert (uri.scheme, uri.authority, uri.path) == (scheme, authority, path)
    assert parse_uri(uri.text) == uri
    assert parse_uri(uri) is uri


@pytest.mark.parametrize(
    "text",
    [
        "",
        "disk:",
        "disk://",
        "a\0b",
        b"disk:///a",
        "memory:name/a",
        "s3:bucket/key",
        "s3:///key",
        "omero:///plate/1",
        "zarr+s3:///p.zarr",
        "disk://raw/plate1",
        "zarr://data/p.zarr",
    ],
)
def test_a_malformed_uri_is_refused_in_one_line(text):
    with pytest.raises(URIError) as caught:
        parse_uri(text)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["disk://raw/plate1", "zarr://data/p.zarr"])
def test_two_slashes_for_three_are_answered_with_what_to_write(text):
    """The commonest slip: the first folder would be taken for a host."""
    with pytest.raises(URIError, match=text.replace("//", "///")):
        parse_uri(text)


@pytest.mark.parametrize(
    "text",
    [
        "disk:///../etc",
        "disk:///a/../../etc",
        "disk:///a/../b",
        "disk:a/../../etc",
        "memory://x/../y",
        "s3://bucket/a/../../other",
        "zarr:///p.zarr/../q.zarr",
        "zarr+s3://bucket/..",
        "omero://host/plate/../1",
    ],
)
def test_two_dots_never_leave_the_root(text):
    with pytest.raises(URIError, match=r"\.\."):
        parse_uri(text)


def test_joining_never_leaves_the_uri():
    uri = parse_uri("zarr:///p.zarr?level=1")
    assert uri.join("B", "/03/", "", "0").text == "zarr:///p.zarr/B/03/0"
    assert parse_uri("memory://x").join("a").text == "memory://x/a"
    assert uri.join().text == "zarr:///p.zarr"
    assert uri.join("a..b").path == "/p.zarr/a..b"
    for inner in ("..", "B/../..", "a/.."):
        with pytest.raises(URIError, match=r"\.\."):
            uri.join(inner)


# Secrets

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"omero://user:{SECRET}@host/plate/1",
        f"s3://AKIA:{SECRET}@bucket/key",
        f"zarr+s3://key:{SECRET}@bucket/p.zarr",
        f"omero://user:{SECRET}@host:4064/plate/1",
        f"omero://us@er:{SECRET}@host/plate/1",
        f"omero://user:{SECRET}/x@host/plate/1",
        f"omero://:{SECRET}@host/plate/1",
        f"disk://user:{SECRET}@host/x",
        f"mine://user:{SECRET}@host/x",
        f"omero:user:{SECRET}@host/plate/1",
        f"s3:key:{SECRET}@bucket/key",
        f"omero://user:{SECRET}@host/../1",
        f"omero://user:{SECRET}@host/plate/1?token={SECRET}",
    ],
)
def test_a_password_is_refused_and_not_repeated(text):
    with pytest.raises(URIError) as caught:
        parse_uri(text)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    assert SECRET not in redact(text)


@pytest.mark.parametrize(
    "key", ["password", "pwd", "token", "secret", "X-Amz-Signature", "sig", "session", "api_key",
            "AWS_ACCESS_KEY_ID", "credential", "Authorization", "PASSPHRASE"]
)  # fmt: skip
def test_a_secret_in_the_query_is_masked_wherever_it_is_printed(key):
    uri = parse_uri(f"s3://bucket/a?{key}={SECRET}&z=3")
    for shown in (str(uri), repr(uri), f"{uri}", redact(uri.text)):
        assert SECRET not in shown
        assert "z=3" in shown
    assert SECRET in uri.text  # the whole of it still works


@pytest.mark.parametrize(
    "text",
    [
        f"s3://bucket/../a?token={SECRET}",
        f"disk:?token={SECRET}",
        f"s3:///a?token={SECRET}",
        f"memory:a?password={SECRET}",
        f"disk://raw/a?sig={SECRET}",
    ],
)
def test_an_error_shows_no_secret_of_the_query(text):
    with pytest.raises(URIError) as caught:
        parse_uri(text)
    assert SECRET not in str(caught.value)


def test_planes_in_the_query_are_not_masked():
    uri = parse_uri("zarr:///p.zarr/B/03/0?c=DAPI&z=3&keyword=a")
    assert uri.query == (("c", "DAPI"), ("z", "3"), ("keyword", "a"))
    assert str(uri) == uri.text


def test_redacting_a_text_that_is_no_uri_leaves_it():
    assert redact("just words") == "just words"
    assert redact("disk:///a b") == "disk:///a b"


# Round trips

_parts = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/?@"), min_size=1, max_size=8
).filter(lambda part: part not in (".", ".."))
_query = st.lists(
    st.tuples(st.sampled_from(["c", "z", "t", "level", "token"]), st.text(max_size=6)), max_size=3
)


@given(
    st.sampled_from(["disk", "zarr", "memory", "s3", "zarr+s3", "omero"]),
    st.lists(_parts, min_size=1, max_size=4),
    _query,
    st.booleans(),
)
def test_the_text_of_a_uri_parses_to_the_same_uri(scheme, parts, query, absolute):
    local = scheme in ("disk", "zarr")
    path = "/".join(parts)
    uri = BackendURI(
        scheme,
        "" if local else "name",
        f"/{path}" if absolute or not local else path,
        tuple(query),
    )
    assume("\ud800" not in uri.path)
    assert parse_uri(uri.text) == uri
    assert pickle.loads(pickle.dumps(uri)) == uri


@given(st.text(max_size=30))
def test_any_text_is_a_uri_or_is_refused(text):
    try:
        uri = parse_uri(text)
    except URIError:
        return
    assert parse_uri(uri.text) == uri


def test_backend_and_transport_are_the_parts_around_the_plus():
    uri = parse_uri("zarr+s3://bucket/p.zarr")
    assert (uri.backend, uri.transport, uri.is_local) == ("zarr", "s3", False)
    uri = parse_uri("zarr:///p.zarr")
    assert (uri.backend, uri.transport, uri.is_local) == ("zarr", None, True)


@pytest.mark.parametrize("text", [".", "disk:.", "./", "disk:./."])
def test_a_dot_is_the_working_directory(text):
    uri = parse_uri(text)
    assert uri.path == "."
    assert parse_uri(uri.text) == uri
    assert uri.join("raw").text == "disk:raw"
