"""``serve`` asked by a page of another origin, as vizarr does."""

import http.server
import threading

import pytest

import polystore_flows as ps
from polystore_flows.serve import PlateServer

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    plate = ps.create_plate(f"zarr:{tmp_path_factory.mktemp('serve')}/p.zarr", 6, ["a"])
    plate.write_table("tables/a.csv", [{"well": "A/1", "n": 1}])
    with PlateServer(plate.uri) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Blank(http.server.BaseHTTPRequestHandler):
    """Another web site."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href=data:,>")

    def log_message(self, *args):
        pass


@pytest.fixture
def fetch(browser):
    """Fetch in a page of another origin; status, text and the headers that the page may see."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blank) as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.05,))
        thread.start()
        page = browser.new_page()
        page.goto(f"http://localhost:{site.server_port}/")
        yield lambda url, **options: page.evaluate(
            """async ([url, options]) => {
                try {
                    const answer = await fetch(url, options);
                    const text = await answer.text();
                    return [answer.status, text, answer.headers.get("Content-Range")];
                } catch (error) { return [0, String(error), null]; }
            }""",
            [url, options],
        )
        page.close()
        site.shutdown()
        thread.join()


def test_a_page_of_another_origin_reads_files_and_ranges(fetch, server):
    with server.open("zarr.json") as file:
        whole = file.read().decode()
    assert fetch(f"{server.url}/zarr.json") == [200, whole, None]
    status, text, told = fetch(f"{server.url}/zarr.json", headers={"Range": "bytes=2-5"})
    assert (status, text) == (206, whole[2:6])
    assert told == f"bytes 2-5/{len(whole.encode())}"
    status, text, _ = fetch(f"{server.url}/zarr.json", headers={"Range": "bytes=-6"})
    assert (status, text) == (206, whole[-6:])


def test_what_is_not_allowed_is_refused_there_too(fetch, server):
    assert fetch(f"{server.url}/..%2f..%2fetc%2fpasswd")[0] == 403
    assert fetch(f"{server.url}/zarr.json", method="POST", body="x")[0] == 405
    assert fetch(f"{server.url}/zarr.json", method="DELETE")[0] == 0  # the browser asked before
    wrong = server.url.replace(server.token, "wrong")
    assert fetch(f"{wrong}/zarr.json")[0] == 403
    assert fetch(f"{server.url}/nothing")[0] == 404
