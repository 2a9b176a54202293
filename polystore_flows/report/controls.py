"""How well an assay tells its positive from its negative controls.

========================  =====================================================================
Z'-factor                 ``1 - 3 (sd+ + sd-) / |mean+ - mean-|``; Zhang, Chung, Oldenburg,
                          J Biomol Screen 4:67, 1999, doi:10.1177/108705719900400206
robust Z'-factor          the same with medians and 1.4826 × the median absolute deviation
SSMD                      ``(mean+ - mean-) / sqrt(sd+² + sd-²)``; Zhang, Genomics 89:552,
                          2007, doi:10.1016/j.ygeno.2007.01.014
signal to background      ``mean+ / mean-``
========================  =====================================================================

Standard deviations are those of a sample (divided by n - 1), so each group needs two wells.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

ROLE_COLUMNS = ("control", "control_type", "role", "well_type")
"""Columns of a plate map that may name controls; the first that does is taken."""

_ROLES = {"positive": re.compile(r"pos|\+$", re.I), "negative": re.compile(r"neg|-$", re.I)}
_MAD = 1.4826
"""Of a normal distribution, standard deviation / median absolute deviation."""


@dataclass(frozen=True, slots=True)
class Group:
    """One measurement in the wells of one kind of control."""

    n: int
    mean: float
    sd: float
    median: float
    mad: float
    """Median absolute deviation, scaled to estimate the standard deviation."""


@dataclass(frozen=True, slots=True)
class Separation:
    """How far one measurement separates the controls; None where it cannot be said."""

    positive: Group
    negative: Group
    z_prime: float | None
    robust_z_prime: float | None
    ssmd: float | None
    signal_to_background: float | None

    def as_json(self) -> dict[str, Any]:
        """As the page takes it."""
        return asdict(self)


def role_of(value: object) -> str | None:
    """``positive`` or ``negative`` where a plate map's `value` begins so (or is + or -)."""
    if isinstance(value, str):
        for role, pattern in _ROLES.items():
            if pattern.match(value.strip()):
                return role
    return None


def separation(positive: Sequence[float], negative: Sequence[float]) -> Separation | None:
    """The statistics above; None where a group has fewer than two wells with a value."""
    if len(positive) < 2 or len(negative) < 2:
        return None
    p, n = _group(positive), _group(negative)
    distance, robust = abs(p.mean - n.mean), abs(p.median - n.median)
    spread = math.hypot(p.sd, n.sd)
    return Separation(
        p,
        n,
        z_prime=1 - 3 * (p.sd + n.sd) / distance if distance else None,
        robust_z_prime=1 - 3 * (p.mad + n.mad) / robust if robust else None,
        ssmd=(p.mean - n.mean) / spread if spread else None,
        signal_to_background=p.mean / n.mean if n.mean else None,
    )


def _group(values: Sequence[float]) -> Group:
    median = statistics.median(values)
    return Group(
        len(values),
        statistics.fmean(values),
        statistics.stdev(values),
        median,
        _MAD * statistics.median(abs(value - median) for value in values),
    )
