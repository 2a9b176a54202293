"""Who may see and change what: users, groups with permissions, and the sessions' contexts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import omero
from omero.model import PermissionsI

from .schema import ENUMERATIONS
from .store import Row, Store

SYSTEM_GROUP, USER_GROUP = 0, 1
"""Groups that every OMERO has: administrators, and everybody."""
_PUBLIC = {"Experimenter", "ExperimenterGroup", "GroupExperimenterMap", "Event", *ENUMERATIONS}


@dataclass(slots=True)
class User:
    """A user of the server."""

    id: int
    name: str
    password: str = field(repr=False)
    groups: list[int]
    """The first is the default."""
    admin: bool = False


@dataclass(slots=True)
class Group:
    """A group; `permissions` as OMERO prints them, ``rw----`` to ``rwrw--``."""

    id: int
    name: str
    permissions: str = "rw----"


@dataclass(frozen=True, slots=True)
class Access:
    """One call's view: who asks, and in which group."""

    store: Store
    user: User
    groups: dict[int, Group]
    """All groups of the server."""
    group: int
    """In which new objects are made; -1 for all groups, as OMERO's clients write it."""

    def member(self, group: int) -> bool:
        """Whether the user belongs to a group."""
        return self.user.admin or group in self.user.groups

    def visible(self, row: Row) -> bool:
        """Whether a query in this group gives the row."""
        return row.kind in _PUBLIC or (self.group in (-1, row.group) and self.readable(row))

    def readable(self, row: Row) -> bool:
        """Whether the user may read the row in any group."""
        if self.user.admin or row.owner == self.user.id or row.kind in _PUBLIC:
            return True
        return row.group in self.user.groups and self.groups[row.group].permissions[2] == "r"

    def writable(self, row: Row) -> bool:
        """Whether the user may change the row."""
        if self.user.admin or (row.owner == self.user.id and self.member(row.group)):
            return self.groups[row.group].permissions[1] == "w"
        return self.member(row.group) and self.groups[row.group].permissions[3] == "w"

    def annotatable(self, row: Row) -> bool:
        """Whether the user may link to the row."""
        return self.writable(row) or (
            self.member(row.group) and self.groups[row.group].permissions[3] in "wa"
        )

    def check_member(self) -> int:
        """The group in which new objects are made.

        Raises:
            omero.SecurityViolation: the user may not write there.
        """
        if self.group not in self.groups or not self.member(self.group):
            raise omero.SecurityViolation(
                message=f"User {self.user.id} is not a member of group {self.group}"
            )
        if self.groups[self.group].permissions[1] != "w":
            raise omero.SecurityViolation(
                message=f"Cannot create objects in group {self.group}, which is read-only"
            )
        return self.group

    def permissions(self, row: Row) -> Any:
        """The row's permissions as a client sees them."""
        group = self.groups.get(row.group)
        found = PermissionsI(group.permissions if group else "rwr-r-")
        may, note = self.writable(row) if group else False, bool(group) and self.annotatable(row)
        # In the order of omero.constants.permissions: link, edit, delete, annotate.
        found._restrictions = [not may, not may, not may, not note]
        return found
