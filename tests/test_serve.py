"""A plate over HTTP: what readers need, and nothing else."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.errors import NotFoundError, UnsupportedError
from polystore_flows.serve import PlateServer

IMAGE = np.arange(2 * 40 * 50, dtype=np.uint16).reshape(1, 2, 1, 40, 50)


@contextmanager
def serving(uri, **options):
    """A running server."""
    with PlateServer(uri, **options) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve") / "my plates"
    plate = ps.create_plate(f"zarr:{folder}/a plate.zarr", 6, ["DAPI", "GFP"])
    plate.write_well("A/1", {0: IMAGE})
    plate.write_table("tables/a.csv", [{"well": "A/1", "n": 1}])
    (folder / "secret.txt").write_text("secret")
    return plate


@pytest.fixture(scope="module")
def server(plate):
    with serving(plate.uri) as running:
        yield running


@pytest.fixture
def ask(server):
    """Ask for a path below the plate (or a whole path); status, headers, body."""

    def call(inner="", method="GET", path=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        whole = path if path is not None else urlsplit(server.url).path + inner
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, whole, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), body

    return call


def test_files_of_the_plate_are_served_as_they_are(ask, plate):
    status, headers, body = ask("/zarr.json")
    assert (status, body) == (200, (plate.root / "zarr.json").read_bytes())
    assert headers["Content-Type"] == "application/json"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Accept-Ranges"] == "bytes"
    assert ask("/tables/a.csv")[2] == (plate.root / "tables/a.csv").read_bytes()


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=5-9", slice(5, 10)),
        ("bytes=7-", slice(7, None)),
        ("bytes=-8", slice(-8, None)),
        ("bytes=-99999999", slice(0, None)),
        ("bytes=10-99999999", slice(10, None)),
    ],
)
def test_a_range_gives_these_bytes(ask, plate, asked, part):
    whole = (plate.root / "zarr.json").read_bytes()
    status, headers, body = ask("/zarr.json", Range=asked)
    assert body == whole[part]
    assert int(headers["Content-Length"]) == len(body)
    if body == whole:
        assert status == 200
    else:
        first = whole.index(body) if part.start is None else len(whole[: part.start])
        assert status == 206
        assert headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_a_range_outside_the_file_is_refused(ask, asked):
    status, headers, _ = ask("/zarr.json", Range=asked)
    assert status == 416
    assert headers["Content-Range"].startswith("bytes */")


@pytest.mark.parametrize(
    "asked",
    ["bytes=1-2,4-5", "bytes=9-3", "bytes=-", "lines=1-2", "bytes=a-b", "bytes=" + 99 * "9" + "-"],
)
def test_what_is_no_single_range_gives_the_whole_file(ask, plate, asked):
    status, _, body = ask("/zarr.json", Range=asked)
    assert (status, body) == (200, (plate.root / "zarr.json").read_bytes())


def test_head_tells_what_get_would_without_the_body(ask):
    status, headers, body = ask("/zarr.json", "HEAD", Range="bytes=0-9")
    assert (status, headers["Content-Length"], body) == (206, "10", b"")
    assert ask("/nothing", "HEAD")[0] == 404


def test_what_is_not_there_and_folders_are_not_found(ask):
    for inner in ("", "/", "/A", "/A/1", "/nothing", "/zarr.json/x", "/secret.txt"):
        assert ask(inner)[0] == 404, inner


@pytest.mark.parametrize(
    "inner",
    [
        "/../secret.txt",
        "/A/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/A/..%5c..%5csecret.txt",
        "//etc/passwd/../../secret.txt",
    ],
)
def test_nothing_outside_the_plate_is_served(ask, inner):
    status, _, body = ask(inner)
    assert status == 403
    assert b"secret" not in body


def test_an_absolute_path_stays_below_the_plate(ask):
    assert ask("//etc/passwd")[0] == 404
    assert ask("/%2fetc%2fpasswd")[0] == 404


def test_a_link_that_leaves_the_plate_is_not_followed(ask, plate):
    outside = plate.root.parent / "secret.txt"
    for name, target in (("leak.txt", outside), ("folder", plate.root.parent)):
        link = plate.root / "tables" / name
        if not link.is_symlink():
            link.symlink_to(target)
    assert ask("/tables/leak.txt")[0] == 403
    assert ask("/tables/folder/secret.txt")[0] == 403
    inside = plate.root / "tables" / "inside.csv"
    if not inside.is_symlink():
        inside.symlink_to(plate.root / "tables" / "a.csv")
    assert ask("/tables/inside.csv")[0] == 200


def test_a_wrong_token_is_refused_whatever_is_asked(ask, server):
    name = quote(server.name)
    for start in ("", "/", "/wrong", f"/{server.token}x", f"/{server.token[:-1]}", "/é".encode()):
        start = start if isinstance(start, str) else quote(start)
        for method in ("GET", "HEAD", "OPTIONS"):
            assert ask(method=method, path=f"{start}/{name}/zarr.json")[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_plate_cannot_be_changed(ask, plate, method):
    before = (plate.root / "zarr.json").read_bytes()
    status, headers, _ = ask("/zarr.json", method)
    assert status == 405
    assert headers["Allow"] == "GET, HEAD, OPTIONS"
    assert (plate.root / "zarr.json").read_bytes() == before


def test_a_foreign_host_name_is_refused(ask, server):
    """A web site that lets its own name point to 127.0.0.1 sends that name."""
    assert ask("/zarr.json", Host="evil.example")[0] == 403
    assert ask("/zarr.json", Host=f"localhost:{server.server_port}")[0] == 200
    assert ask("/zarr.json", Host="localhost:9000")[0] == 200  # through a tunnel


def test_a_browser_may_ask_before_it_asks(ask):
    status, headers, body = ask("/zarr.json", "OPTIONS", Origin="https://example.org")
    assert (status, body) == (204, b"")
    assert "Range" in headers["Access-Control-Allow-Headers"]
    assert headers["Access-Control-Allow-Private-Network"] == "true"


def test_only_the_loopback_interface_listens(server):
    assert server.server_address[0] == "127.0.0.1"


def test_without_a_token_the_plate_is_at_its_name(plate):
    with serving(plate.uri, token="") as server:
        assert urlsplit(server.url).path == "/a%20plate.zarr"
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        connection.request("GET", "/a%20plate.zarr/zarr.json")
        assert connection.getresponse().status == 200
        connection.close()


def test_a_folder_of_images_is_served_too(tmp_path, plate):
    ps.copy(plate.uri, f"disk:{tmp_path}/folder")
    file = next((tmp_path / "folder").rglob("*.tif"))
    with serving(f"disk:{tmp_path}/folder", token="t") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        connection.request("GET", f"/t/folder/{file.relative_to(tmp_path / 'folder')}")
        assert connection.getresponse().read() == file.read_bytes()
        connection.close()


def test_other_readers_open_the_plate_by_its_url(server, plate):
    """zarr-python over fsspec, as napari-ome-zarr and ome-zarr do; shards by ranges."""
    zarr = pytest.importorskip("zarr")
    pytest.importorskip("aiohttp")
    group = zarr.open_group(server.url, mode="r")
    assert group.attrs["ome"]["plate"]["wells"][0]["path"] == "A/1"
    np.testing.assert_array_equal(group["A/1/0/0"][:], IMAGE)


def test_a_port_that_is_taken_and_a_plate_that_is_not_there_are_one_line(plate, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} cannot be used.*choose another"):
            PlateServer(plate.uri, port)
    with pytest.raises(NotFoundError):
        PlateServer(f"zarr:{tmp_path}/nothing.zarr")


def test_a_backend_without_files_is_refused(plate, monkeypatch):
    monkeypatch.setattr("polystore_flows.serve.backend_for", lambda uri: object())
    with pytest.raises(UnsupportedError, match="polystore-flows cp"):
        PlateServer(plate.uri)


def test_a_plate_in_a_store_is_served_from_there(plate):
    ps.copy(plate.uri, "zarr+memory://serve/p.zarr")
    with serving("zarr+memory://serve/p.zarr", token="t") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        connection.request("GET", "/t/p.zarr/A/1/0/zarr.json", headers={"Range": "bytes=0-4"})
        answer = connection.getresponse()
        assert (answer.status, len(answer.read())) == (206, 5)
        connection.close()
