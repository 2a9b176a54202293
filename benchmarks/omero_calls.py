"""What reading an OMERO plate costs, in calls and seconds: polystore 0.6.3 and ours.

``uv run --extra omero --with polystore==0.6.3 python benchmarks/omero_calls.py`` takes a minute or
two; without polystore only ours is measured. Both talk to one loopback server over TCP with the
real omero-py, and every call takes some milliseconds longer, as on a network.
"""

from __future__ import annotations

import argparse
import atexit
import os
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from polystore_flows.hcs.layout import Layout
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.plates import add_plate

PLANES = 64


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wells", type=int, default=384)
    parser.add_argument("--fields", type=int, default=4)
    parser.add_argument("--latency", type=float, default=2.0, help="milliseconds a call")
    options = parser.parse_args()
    with OmeroServer() as server:
        os.environ.update(server.environment)
        number = add_plate(server, _wells(options.wells, options.fields), layout=options.wells)
        kinds = {"Polystore Flows": _ours}
        if find_spec("polystore") is not None:
            kinds = {"polystore 0.6.3": _polystore, **kinds}
        print(
            f"{options.wells} wells, {options.fields} fields, {PLANES} planes of one image, "
            f"{options.latency:g} ms a call\n"
        )
        print(f"{'':18}{'open and list':>26}{f'{PLANES} planes':>26}")
        for name, act in kinds.items():
            server.delay = 0.0
            steps = act(server, number)
            server.delay = options.latency / 1000
            cells = [_measured(server, step) for step in steps]
            print(f"{name:18}" + "".join(f"{n:>12} calls {s:>5.1f} s" for n, s in cells))


def _measured(server: OmeroServer, step: Callable[[], object]) -> tuple[int, float]:
    server.reset()
    start = time.perf_counter()
    step()
    return server.total_calls, time.perf_counter() - start


def _wells(wells: int, fields: int) -> dict[str, list[np.ndarray]]:
    grid = Layout.of(wells)
    image = np.arange(PLANES * 64 * 64, dtype=np.uint16).reshape(1, 1, PLANES, 64, 64)
    small = image[:, :, :1]
    found = {f"{r}/{c}": [small] * fields for r in grid.rows for c in grid.columns}
    found["A/1"] = [image] * fields
    return found


def _ours(server: OmeroServer, number: int) -> list[Callable[[], object]]:
    import polystore_flows as ps

    uri = server.uri(f"plate/{number}")
    ps.get_backend("omero").connection(uri).live()
    planes = [f"{uri}/A/1/0?t=0&c=0&z={z}" for z in range(PLANES)]
    return [
        lambda: (ps.open_plate(uri).channels, ps.list_files(uri, recursive=True)),
        lambda: ps.load_batch(planes),
    ]


def _polystore(server: OmeroServer, number: int) -> list[Callable[[], object]]:
    from omero.gateway import BlitzGateway
    from polystore.omero_local import OMEROLocalBackend

    gateway = BlitzGateway(
        server.demo.name,
        server.demo.password,
        host=f"tcp://{server.host}",
        port=server.port,
        secure=False,
    )
    assert gateway.connect()
    atexit.register(gateway.close)
    backend = OMEROLocalBackend(omero_conn=gateway)
    folder = f"/omero/plate_{number}"
    planes = [f"{folder}/A01_s001_w1_z{z + 1:03d}_t001.tif" for z in range(PLANES)]
    return [lambda: backend.list_files(folder), lambda: backend.load_batch(planes)]


if __name__ == "__main__":
    main()
