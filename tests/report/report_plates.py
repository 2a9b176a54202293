"""What the plates of these tests hold."""

from __future__ import annotations

import numpy as np

SIDE = 48
EVIL = "<script>alert(1)</script>\"'&\u2028"


def picture(well: int, channels: int) -> np.ndarray:
    """A square of brightness that tells the well, on a dark ground with some noise."""
    rng = np.random.default_rng(well)
    image = rng.normal(100, 5, (1, channels, 1, SIDE, SIDE))
    image[..., 10:30, 12:34] += 1000 + 10 * well
    return image.astype(np.uint16)


def square() -> np.ndarray:
    """The label image of `picture`: two objects that touch."""
    labels = np.zeros((SIDE, SIDE), np.uint16)
    labels[10:30, 12:22], labels[10:30, 22:34] = 1, 2
    return labels
