"""Draw the number of nuclei in every well over the plate."""

import argparse

import matplotlib
import matplotlib.pyplot as plt

import polystore_flows as ps
from polystore_flows.hcs.address import parse_well

matplotlib.use("Agg")  # no screen is needed


def main() -> None:
    """Read the plate's `tables/nuclei.csv`; write a PNG."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plate", help="URI of the plate")
    parser.add_argument("picture", help="PNG that is written")
    args = parser.parse_args()

    plate = ps.open_plate(args.plate)
    table = plate.read_table("tables/nuclei.csv")
    rows, columns = plate.rows, plate.columns
    places = [plate.layout.find(parse_well(well)) for well in table["well"]]
    y, x = zip(*places, strict=True)

    inch = 0.72 if len(rows) <= 8 else 0.3  # a well
    size = (inch * len(columns) + 2.2, inch * len(rows) + 1.5)
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    area = (inch * 72 * 0.78) ** 2
    grid = [(column, row) for row in range(len(rows)) for column in range(len(columns))]
    axes.scatter(*zip(*grid, strict=True), s=area, facecolor="#f4f4f4", edgecolor="#c8c8c8")
    top = table["nuclei"].max()
    wells = axes.scatter(
        x, y, s=area, c=table["nuclei"], cmap="viridis", vmin=0, vmax=top, edgecolor="#404040"
    )
    if inch > 0.5:
        for column, row, nuclei in zip(x, y, table["nuclei"], strict=True):
            ink = "black" if nuclei > 0.55 * top else "white"
            axes.text(column, row, nuclei, ha="center", va="center", color=ink, fontsize=10)

    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.xaxis.tick_top()
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_aspect("equal")
    axes.tick_params(length=0, labelsize=11)
    for side in axes.spines.values():
        side.set_color("#c8c8c8")
    axes.set_title(f"Nuclei per well, {plate.name}", fontsize=13, pad=10)
    bar = figure.colorbar(wells, ax=axes, shrink=0.9)
    bar.set_label("nuclei")
    bar.outline.set_edgecolor("#c8c8c8")
    figure.savefig(args.picture, dpi=150)


if __name__ == "__main__":
    main()
