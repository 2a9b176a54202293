"""Make a small raw plate, as a microscope would leave it, from one real image of nuclei.

    python make_raw_plate.py FOLDER

Twelve wells (B02 to D05) of two fields, 16-bit TIFFs named like ImageXpress names them,
``B02_s1_w1.tif``, and a plate map in ``tables/conditions.csv``. README.md says where the image
comes from and what is done to it here.
The same pixels come out every time, so the plate is not written again where it is complete.
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

ROWS, COLUMNS = "BCD", (2, 3, 4, 5)
LOST = (0.0, 0.25, 0.5, 0.75)  # share of the nuclei that each column has lost: a made-up dose
FIELDS = 2
SIDE = 256  # pixels
GAIN = 40  # grey values of the 16-bit image for one of the 8-bit original
PIXEL_SIZE = 0.325  # micrometres


def vignette(side: int) -> np.ndarray:
    """Relative illumination (y, x) of a lamp that is off centre: 1 at its brightest, 0.4 in the
    far corner."""
    y, x = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    return np.exp(-0.3 * ((y + 0.25) ** 2 + (x - 0.2) ** 2))


def thin_out(image: np.ndarray, nuclei: np.ndarray, share: float, rng) -> np.ndarray:
    """`image` with a share of its nuclei, chosen by `rng`, overwritten by pixels of background."""
    names = np.unique(nuclei[nuclei > 0])
    gone = np.isin(nuclei, rng.permutation(names)[: round(share * len(names))])
    kept = ndimage.binary_dilation((nuclei > 0) & ~gone, iterations=2)
    gone = ndimage.binary_dilation(gone, iterations=4) & ~kept  # with the glow around it
    background = image[~ndimage.binary_dilation(nuclei > 0, iterations=4)]
    background = background[background <= np.median(background)]
    thinned = image.copy()
    thinned[gone] = rng.choice(background, np.count_nonzero(gone))
    return thinned


def fields_of(row: int, column: int, image: np.ndarray, nuclei: np.ndarray) -> list[np.ndarray]:
    """The fields of one well, ``(y, x)`` uint16."""
    rng = np.random.default_rng([row, column])
    thinned = thin_out(image, nuclei, LOST[column], rng)
    fields = []
    for _ in range(FIELDS):
        top, left = rng.integers(0, image.shape[0] - SIDE + 1, size=2)
        crop = np.rot90(thinned[top : top + SIDE, left : left + SIDE], rng.integers(4))
        if rng.integers(2):
            crop = crop[:, ::-1]
        fields.append(np.rint(crop * GAIN * vignette(SIDE)).astype(np.uint16))
    return fields


def read_sample() -> tuple[np.ndarray, np.ndarray]:
    """The image and its label image, ``(y, x)``."""
    try:
        from ngio.resources import get_sample_info
    except ModuleNotFoundError:
        sys.exit("error: the image comes with ngio; run pip install 'polystore-flows[demo]'")
    sample = get_sample_info("Cardiomyocyte")
    nuclei = np.asarray(Image.open(sample.labels[0].label_path))
    return np.asarray(Image.open(sample.img_path), dtype=np.float64), nuclei


def save(field: np.ndarray, path: Path) -> None:
    """Write a 16-bit TIFF with its pixel size; it is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    per_centimetre = 1e4 / PIXEL_SIZE
    tifffile.imwrite(
        part,
        field,
        compression="zlib",
        resolution=(per_centimetre, per_centimetre),
        resolutionunit="CENTIMETER",
    )
    part.replace(path)


def plate_map() -> str:
    """What was done to each well, as CSV: the share of nuclei lost stands for a dose."""
    controls = {COLUMNS[0]: "negative", COLUMNS[-1]: "positive"}
    lines = ["row,column,lost_percent,control"]
    for row, (column, lost) in product(ROWS, zip(COLUMNS, LOST, strict=True)):
        lines.append(f"{row},{column},{lost:.0%},{controls.get(column, '')}".replace("%", ""))
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Write to `folder`, which is made, the plate map and the fields that it does not hold yet."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    conditions = folder / "tables" / "conditions.csv"
    if not conditions.exists():
        conditions.write_text(plate_map())
    missing: dict[tuple[int, int], dict[int, Path]] = {}
    for row, column, site in np.ndindex(len(ROWS), len(COLUMNS), FIELDS):
        path = folder / f"{ROWS[row]}{COLUMNS[column]:02}_s{site + 1}_w1.tif"
        if not path.exists():
            missing.setdefault((row, column), {})[site] = path
    if not missing:
        return
    image, nuclei = read_sample()
    for (row, column), paths in missing.items():
        fields = fields_of(row, column, image, nuclei)
        for site, path in paths.items():
            save(fields[site], path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
