"""Decides, when several processes make the same thing at once, whose counts.

OMERO has no name that must be unique (wells apart), but it writes an object only if nobody else
changed it since it was read. So a new thing is first a *candidate*, and its maker may decide for
it once every other of that name is decided against: of two candidates at least one sees the
other, and deciding and withdrawing exclude each other on the server. A candidate whose maker
died is withdrawn after a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ...errors import ConflictError, MismatchError
from .connection import Connection

CANDIDATE, WITHDRAWN = "polystore-flows: being made", "polystore-flows: withdrawn"
"""States, in a text field of the object; any other text, or none, is decided."""
PATIENCE = 20.0
"""Seconds that the maker of an older candidate is given."""


def is_decided(state: str | None) -> bool:
    """Whether an object in this state counts."""
    return state not in (CANDIDATE, WITHDRAWN)


def settle(
    connection: Connection,
    number: int,
    candidates: Callable[[], list[Any]],
    field: str,
    group: int,
    where: str,
) -> bool:
    """Decide on the candidate `number`; whether it is the one that counts, else another is.

    Args:
        connection: to the server.
        number: of the candidate that the caller made.
        candidates: all objects of the name, as a query gives them now.
        field: attribute that holds the state.
        group: that they are in.
        where: URI for errors.

    Raises:
        ConflictError: it was withdrawn, and so were all others.
    """
    deadline = time.monotonic() + PATIENCE
    pause = 0.02
    while True:
        known = {obj.getId().getValue(): obj for obj in candidates()}
        mine = known.pop(number, None)
        running = mine is not None and _state(mine, field) != WITHDRAWN
        rivals = {n: o for n, o in known.items() if _state(o, field) != WITHDRAWN}
        if any(is_decided(_state(obj, field)) for obj in rivals.values()):
            return False
        late = time.monotonic() > deadline
        for other, obj in rivals.items():
            if (running and other > number) or late:
                _set(connection, obj, field, WITHDRAWN, group, where)
        if not rivals and not running:
            raise ConflictError(f"{where}: whoever else made it gave up; try again")
        if not rivals and _set(connection, mine, field, "", group, where):
            return True
        if not running or any(other < number for other in rivals):
            time.sleep(pause)
            pause = min(pause * 2, 1.0)


def _state(obj: Any, field: str) -> str | None:
    value = getattr(obj, field)
    return None if value is None else str(value.getValue())


def _set(connection: Connection, obj: Any, field: str, state: str, group: int, where: str) -> bool:
    """Change the state unless somebody else changed the object since it was read."""
    from omero.rtypes import rstring

    setattr(obj, field, rstring(state))
    try:
        connection.save([obj], group, where)
    except (ConflictError, MismatchError):  # changed, or deleted
        return False
    return True
