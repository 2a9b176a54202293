"""Correct the illumination of one well, find its nuclei and measure them."""

import argparse

import pandas as pd

import polystore_flows as ps
from polystore_flows import steps


def main() -> None:
    """Read a well of the plate SOURCE; write it, its labels and its table to the plate TARGET."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="URI of the raw plate")
    parser.add_argument("target", help="URI of the plate with the results")
    parser.add_argument("well", help="for example B/3")
    parser.add_argument("--channel", default="0", help="index or name of the nuclear stain")
    parser.add_argument("--diameter", type=float, default=11, help="of a nucleus, micrometres")
    args = parser.parse_args()

    plate = ps.open_plate(args.source)
    well = plate[args.well]
    raw = {field: well.image(field) for field in well.fields}
    pixels = {field: image.read() for field, image in raw.items()}
    flat = steps.flat_field(list(pixels.values()))

    images, labels, tables = {}, {}, []
    for field, image in raw.items():
        name = int(args.channel) if args.channel.isdecimal() else args.channel
        channel = image.info.channel_index(name)
        images[field] = steps.correct_illumination(pixels[field], flat)
        nuclei = steps.segment_nuclei(
            images[field], channel, pixel_size=image.pixel_size, diameter=args.diameter
        )
        labels[field] = {"nuclei": nuclei}
        table = steps.measure_nuclei(nuclei, images[field], pixel_size=image.pixel_size)
        table.insert(0, "field", field)
        tables.append(table)

    # Jobs run side by side: whoever comes first makes the plate. A well is listed once all of it
    # is written, and a reader sees the old well until then.
    channels = ps.display_channels(plate)  # the same whoever that is
    target = ps.create_plate(args.target, like=plate, channels=channels, exist_ok=True)
    made = ps.provenance(
        "analyse_well.py",
        ps.__version__,
        parameters={"channel": args.channel, "diameter": args.diameter},
        inputs=[well.uri],
    )
    target.write_well(args.well, images, labels, overwrite=True, provenance=made)
    target.write_table(f"{args.well}/tables/nuclei.csv", pd.concat(tables, ignore_index=True))


if __name__ == "__main__":
    main()
