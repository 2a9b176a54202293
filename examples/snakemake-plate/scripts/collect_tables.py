"""Sum up the tables of all wells in one table of the plate; bring a plate map along."""

import argparse

import polystore_flows as ps


def main() -> None:
    """Read `tables/nuclei.csv` of each well; write one row a well to the plate's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="URI of the raw plate, which may have a plate map")
    parser.add_argument("target", help="URI of the plate with the results")
    parser.add_argument("wells", nargs="+", help="for example B/3")
    args = parser.parse_args()

    plate = ps.open_plate(args.target, mode="r+")
    tables = ps.load_batch([f"{args.target}/{well}/tables/nuclei.csv" for well in args.wells])
    rows = []
    for well, nuclei in zip(args.wells, tables, strict=True):
        row, column = well.split("/")
        fields = len(plate[well].fields)
        means = nuclei[[c for c in nuclei if c == "area_um2" or c.startswith("mean_")]].mean()
        rows.append(
            {"well": well, "row": row, "column": int(column), "fields": fields}
            | {"nuclei": len(nuclei), "nuclei_per_field": len(nuclei) / fields}
            | means.to_dict()
        )
    plate.write_table("tables/nuclei.csv", rows)
    if ps.exists(f"{args.source}/tables/conditions.csv"):
        plate.write_table("tables/conditions.csv", ps.load(f"{args.source}/tables/conditions.csv"))


if __name__ == "__main__":
    main()
