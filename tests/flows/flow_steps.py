"""Steps for the tests, as a user would write them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from polystore_flows.steps import makes


def scale(image, factor=2):
    """An image."""
    return image * image.dtype.type(factor)


@makes("labels/bright")
def bright(image, above=2):
    """Labels."""
    return (image[:, :1] > above).astype("uint32")


def count(image, pixel_size):
    """A table, from a function that wants to know the pixel size."""
    area = int((image > 2).sum()) * pixel_size[1] * pixel_size[2]
    return pd.DataFrame({"label": [1, 2], "area_um2": [area, float(image.mean())]})


@makes("image", of="well")
def against_mean(images):
    """All images of a well, each less the least of the well."""
    least = min(image.min() for image in images.values())
    return {field: image - least for field, image in images.items()}


def everything(image, channels):
    """Three outputs at once."""
    table = pd.DataFrame({"channel": list(channels), "mean": image.mean((0, 2, 3, 4))})
    return {
        "image": image,
        "labels/bright": bright(image),
        "tables/means.csv": table,
    }


def rows(image, channels):
    """A table as rows."""
    return {"tables/means.csv": [{"channel": c, "mean": 1.0} for c in channels]}


def no_table(image):
    """A list of what are no rows."""
    return {"tables/means.csv": [1, 2]}


def fails_on(image, values=(3,)):
    """Raises on the wells that hold one of some values."""
    if image.flat[0] in values:
        raise ZeroDivisionError(f"no way with {image.flat[0]}")
    return image


def wrong_shape(image, values=(3,)):
    """Another shape on some wells."""
    return image[..., :-1] if image.flat[0] in values else image


def nothing(image):
    """No result at all."""


def noted(image, folder, pause=0.0):
    """Leaves a note for every time that it runs."""
    time.sleep(pause)
    Path(folder, f"{int(image.flat[0])} {os.getpid()} {time.monotonic_ns()}").touch()
    return image


def deadly(image, folder, value):
    """Kills its process on one well, the first time."""
    if image.flat[0] == value and not Path(folder, "killed").exists():
        Path(folder, "killed").touch()
        os.kill(os.getpid(), 9)
    return image


def busy(image, seconds=0.05):
    """Keeps a core busy."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return np.asarray(image)
