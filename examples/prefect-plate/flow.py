"""Nuclei of a plate: corrected images, label images and tables, and a heat map.

    python flow.py [SOURCE [TARGET]]

Without arguments it works on disk:raw and zarr:plate.zarr of the working directory.
"""

import sys

import polystore_flows as ps
from polystore_flows.flows import plate_flow, process_plate


@plate_flow("nuclei")  # Prefect's flow, but a URI with a password makes no run
def nuclei(
    source: str = "disk:raw",
    target: str = "zarr:plate.zarr",
    channel: int = 0,
    diameter: float = 11.0,
    runner: str = "processes",
) -> dict:
    """Find and measure the nuclei of every well that is not up to date.

    Args:
        source: URI of the raw plate.
        target: URI of the plate with the results.
        channel: Index of the channel with the nuclear stain.
        diameter: Of a typical nucleus, in micrometres.
        runner: threads, processes, dask, or the address of a Dask scheduler.
    """
    raw = ps.open_plate(source)
    channels = ps.display_channels(raw)  # one contrast, whichever well is first
    ps.create_plate(target, like=raw, channels=channels, exist_ok=True)
    return process_plate(
        source,
        target,
        "polystore_flows.steps:analyse_nuclei",
        {"channel": channel, "diameter": diameter},
        runner=runner,
    )


if __name__ == "__main__":  # the processes that do the work read this file, too
    done = nuclei(*sys.argv[1:3])
    print(f"{len(done['processed'])} wells processed, {len(done['up_to_date'])} up to date")
