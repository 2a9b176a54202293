"""Answers of stores that are believed for a while, so that they are not asked again and again.

Whenever a job ends, Snakemake asks for existence and size of the inputs of every job that is ready:
for N jobs some N² questions.
"""

from __future__ import annotations

import time


class Answers:
    """What exists and how large it is; a negative answer is never believed. Threads may share it.

    A *place* is ``query.place_of``, equal for all spellings of a query.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        self._absent: dict[str, float] = {}
        self._listings: dict[str, tuple[float, dict[str, float]]] = {}

    def exists(self, place: str) -> bool:
        """Whether it was there a moment ago."""
        return self._until.get(place, 0.0) > time.monotonic()

    def outdated(self, place: str) -> bool:
        """Whether it was there, but longer ago than is believed."""
        return place in self._until and not self.exists(place)

    def size(self, place: str) -> int | None:
        """Its bytes, if they were asked for; they change only with what `forget` is told of."""
        return self._sizes.get(place)

    def absent_since(self, place: str) -> float | None:
        """Seconds since 1970 when it was last seen not to be there."""
        return self._absent.get(place)

    def listing(self, name: str) -> tuple[float, dict[str, float]] | None:
        """When a listing was made, by ``time.monotonic``, and what it showed; if a moment ago."""
        kept = self._listings.get(name)
        return kept if kept and kept[0] + self._seconds > time.monotonic() else None

    def listed(self, name: str, since: float, times: dict[str, float]) -> None:
        """A listing that was begun at `since` shows this."""
        self._listings[name] = since, times

    def found(self, place: str, since: float | None = None) -> None:
        """It is there, or was at `since`, by ``time.monotonic``."""
        self._until[place] = (time.monotonic() if since is None else since) + self._seconds

    def missed(self, place: str) -> None:
        """It is not there."""
        self._listings.clear()
        self._until.pop(place, None)
        self._sizes.pop(place, None)
        self._absent[place] = time.time()

    def sized(self, place: str, size: int) -> None:
        """It is so large."""
        self._sizes[place] = size

    def forget(self, place: str) -> None:
        """It, and what lies in it, is written or removed; what it lies in may be gone too."""
        self._listings.clear()
        above = place
        while above:
            self._until.pop(above, None)
            above = above.rpartition("/")[0]
        for answers in (self._until, self._sizes):
            for known in list(answers):
                if known.startswith(place) and known[len(place) : len(place) + 1] in ("", "/", "?"):
                    answers.pop(known, None)
