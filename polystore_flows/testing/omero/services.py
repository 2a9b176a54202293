"""The stateless services: IQuery, IUpdate, IPixels, IAdmin, IConfig, ISession, IContainer."""

from __future__ import annotations

import time
from typing import Any

import omero
import omero.api
import omero.sys
from omero.rtypes import rdouble, rint, rlong, rstring, rtime, unwrap

from .deletion import delete
from .graph import Saver, load
from .query import objects, project
from .schema import kind_of
from .servant import Servant, Session
from .store import Ref, Row

_TYPES = {  # of IPixels.createImage: significant bits
    "int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "float": 32,
    "double": 64, "bit": 1,
}  # fmt: skip


class _Service(Servant):
    def __init__(self, session: Session) -> None:
        self._session = session
        self._store = session.server.store


class Query(_Service, omero.api.IQuery):
    """IQuery, with the HQL of ``hql``."""

    def get(self, kind: str, number: int, current: Any) -> Any:
        """The object; an error where there is none."""
        found = self._find(kind, number, current)
        if found is None:
            raise omero.ValidationException(
                message=f"The requested object ({kind},{number}) is not available."
            )
        return found

    def find(self, kind: str, number: int, current: Any) -> Any:
        """The object, or None."""
        return self._find(kind, number, current)

    def _find(self, kind: str, number: int, current: Any) -> Any:
        access = self._session.access(current)
        with self._store.lock:
            row = self._store.find(kind.removeprefix("omero.model.").removesuffix("I"), number)
            return load(row, access) if row is not None and access.visible(row) else None

    def findByQuery(self, query: str, parameters: Any, current: Any) -> Any:
        """The one object that a query gives, or None."""
        with self._store.lock:
            found = objects(query, parameters, self._session.access(current))
        if len(found) > 1:
            raise omero.ApiUsageException(message="findByQuery() found more than one result")
        return found[0] if found else None

    def findAllByQuery(self, query: str, parameters: Any, current: Any) -> list[Any]:
        """All objects that a query gives."""
        with self._store.lock:
            return objects(query, parameters, self._session.access(current))

    def projection(self, query: str, parameters: Any, current: Any) -> list[list[Any]]:
        """Rows of values."""
        with self._store.lock:
            return project(query, parameters, self._session.access(current))


class Update(_Service, omero.api.IUpdate):
    """IUpdate; each call is one transaction."""

    def saveObject(self, obj: Any, current: Any) -> None:
        """Write a graph."""
        self._save([obj], current)

    def saveAndReturnObject(self, obj: Any, current: Any) -> Any:
        """Write a graph and give it back."""
        return self._save([obj], current)[0]

    def saveArray(self, objs: list[Any], current: Any) -> None:
        """Write graphs."""
        self._save(objs, current)

    def saveCollection(self, objs: list[Any], current: Any) -> None:
        """Write graphs."""
        self._save(objs, current)

    def saveAndReturnArray(self, objs: list[Any], current: Any) -> list[Any]:
        """Write graphs and give them back."""
        return self._save(objs, current)

    def saveAndReturnIds(self, objs: list[Any], current: Any) -> list[int]:
        """Write graphs; their numbers."""
        return [unwrap(obj._id) for obj in self._save(objs, current)]

    def deleteObject(self, obj: Any, current: Any) -> None:
        """Delete one row that nothing refers to."""
        with self._store.transaction():
            delete({kind_of(obj): [unwrap(obj._id)]}, self._session.access(current), cascade=False)

    def _save(self, objs: list[Any], current: Any) -> list[Any]:
        with self._store.transaction():
            saver = Saver(self._session.access(current))
            return [saver.save(obj) for obj in objs]


class Pixels(_Service, omero.api.IPixels):
    """IPixels: new images and the description of pixels."""

    def createImage(
        self,
        x: int,
        y: int,
        z: int,
        t: int,
        channels: list[int],
        pixels_type: Any,
        name: str,
        description: str | None,
        current: Any,
    ) -> Any:
        """Make an image with pixels of which nothing is written yet; its number."""
        if min(x, y, z, t) < 1 or not channels:
            raise omero.ApiUsageException(message="Dimensions must be greater than zero")
        access = self._session.access(current)
        kind = unwrap(pixels_type._value) if pixels_type._value is not None else None
        stored = self._store.find("PixelsType", unwrap(pixels_type._id) or 0)
        stored = stored or self._store.enumeration("PixelsType", kind or "")
        if stored is None:
            raise omero.ApiUsageException(message=f"no such pixels type: {kind}")
        image = omero.model.ImageI()
        image.setName(rstring(name))
        image.setDescription(rstring(description))
        pixels = omero.model.PixelsI()
        for attribute, value in zip("XYZCT", (x, y, z, len(channels), t), strict=True):
            setattr(pixels, f"_size{attribute}", rint(value))
        pixels.setSha1(rstring("Pending..."))
        pixels.setPixelsType(omero.model.PixelsTypeI(stored.id, False))
        pixels.setSignificantBits(rint(_TYPES.get(stored.fields["value"], 0)))
        order = self._store.enumeration("DimensionOrder", "XYZCT")
        assert order is not None
        pixels.setDimensionOrder(omero.model.DimensionOrderI(order.id, False))
        for _ in channels:
            channel = omero.model.ChannelI()
            channel.setLogicalChannel(omero.model.LogicalChannelI())
            pixels.addChannel(channel)
        image.addPixels(pixels)
        with self._store.transaction():
            Saver(access).save(image)
        return image.getId()

    def setChannelGlobalMinMax(
        self, pixels: int, channel: int, low: float, high: float, current: Any
    ) -> None:
        """Keep the smallest and largest value of a channel."""
        access = self._session.access(current)
        with self._store.transaction():
            row = self._store.members("Channel", "pixels", pixels)[channel]
            if not access.writable(row):
                raise omero.SecurityViolation(message=f"Updating Pixels:{pixels} not allowed")
            info = omero.model.StatsInfoI()
            info.setGlobalMin(rdouble(low))
            info.setGlobalMax(rdouble(high))
            saver = Saver(access)
            saver.save(info)
            self._store.change(row, {"statsInfo": Ref("StatsInfo", unwrap(info._id))}, saver.event)

    def getAllEnumerations(self, kind: str, current: Any) -> list[Any]:
        """All values of an enumeration."""
        access = self._session.access(current)
        return [load(row, access) for row in self._store.all(kind.rpartition(".")[2])]

    def getEnumeration(self, kind: str, value: str, current: Any) -> Any:
        """One value of an enumeration."""
        row = self._store.enumeration(kind.rpartition(".")[2], value)
        return None if row is None else load(row, self._session.access(current))


class Admin(_Service, omero.api.IAdmin):
    """IAdmin, as far as it tells who one is."""

    def getEventContext(self, current: Any) -> Any:
        """User, group and session of the caller."""
        user, groups = self._session.user, self._session.server.groups
        access = self._session.access(current)
        group = groups[access.group if access.group in groups else self._session.group]
        return omero.sys.EventContext(
            sessionId=1,
            sessionUuid=self._session.uuid,
            userId=user.id,
            userName=user.name,
            groupId=group.id,
            groupName=group.name,
            isAdmin=user.admin,
            adminPrivileges=[],
            eventId=-1,
            eventType="User",
            memberOfGroups=list(user.groups),
            leaderOfGroups=[],
            groupPermissions=omero.model.PermissionsI(group.permissions),
        )

    def getExperimenter(self, number: int, current: Any) -> Any:
        """A user."""
        return self._get("Experimenter", number, current)

    def getGroup(self, number: int, current: Any) -> Any:
        """A group."""
        return self._get("ExperimenterGroup", number, current)

    def lookupGroup(self, name: str, current: Any) -> Any:
        """A group by its name."""
        for group in self._session.server.groups.values():
            if group.name == name:
                return self._get("ExperimenterGroup", group.id, current)
        raise omero.ApiUsageException(message=f"No such group: {name}")

    def getMemberOfGroupIds(self, user: Any, current: Any) -> list[int]:
        """Numbers of the groups of a user."""
        found = self._session.server.user(unwrap(user._id))
        return list(found.groups)

    def getSecurityRoles(self, current: Any) -> Any:
        """Numbers of the users and groups that every server has."""
        return omero.sys.Roles(
            rootId=0, rootName="root", systemGroupId=0, systemGroupName="system",
            userGroupId=1, userGroupName="user", guestId=1, guestName="guest",
            guestGroupId=2, guestGroupName="guest",
        )  # fmt: skip

    def _get(self, kind: str, number: int, current: Any) -> Any:
        row = self._store.find(kind, number)
        if row is None:
            raise omero.ApiUsageException(message=f"No such {kind}: {number}")
        return load(row, self._session.access(current))


class Config(_Service, omero.api.IConfig):
    """IConfig."""

    def getVersion(self, current: Any) -> str:
        """The version that it talks like."""
        return "5.6.0"

    def getDatabaseUuid(self, current: Any) -> str:
        """Of this store."""
        return "loopback"

    def getServerTime(self, current: Any) -> Any:
        """Now."""
        return rtime(int(time.time() * 1000))

    def getConfigValue(self, key: str, current: Any) -> str:
        """Settings that clients ask for; empty for all others."""
        if key == "omero.router.insecure":
            return self._session.server.router_address
        return {"omero.client.ui.menu.dropdown.colleagues.enabled": "true"}.get(key, "")


class Sessions(_Service, omero.api.ISession):
    """ISession."""

    def getSession(self, uuid: str, current: Any) -> Any:
        """The session of this key."""
        known = self._session.server.session(uuid)
        found = omero.model.SessionI()
        found.setUuid(rstring(known.uuid))
        found.setOwner(omero.model.ExperimenterI(known.user.id, False))
        return found

    def closeSession(self, session: Any, current: Any) -> int:
        """End a session."""
        self._session.server.expire(unwrap(session.getUuid()))
        return -2

    def createUserSession(self, live: int, idle: int, group: str | None, current: Any) -> Any:
        """Another session of the same user; its key."""
        made = self._session.server.open_session(self._session.user, self._session.group)
        made.keeps = True
        found = omero.model.SessionI()
        found.setUuid(rstring(made.uuid))
        return found


class Container(_Service, omero.api.IContainer):
    """IContainer: images by number."""

    def getImages(self, kind: str, numbers: list[int], options: Any, current: Any) -> list[Any]:
        """Images with their pixels, as the gateway's ``getObject`` asks for them."""
        if kind.rpartition(".")[2] != "Image":
            raise omero.ApiUsageException(message=f"the loopback server loads no {kind} here")
        parameters = omero.sys.ParametersI().addIds([rlong(n) for n in numbers])
        query = (
            "select i from Image i left outer join fetch i.pixels p "
            "left outer join fetch p.pixelsType where i.id in (:ids)"
        )
        with self._store.lock:
            return objects(query, parameters, self._session.access(current))


def experimenter(name: str) -> dict[str, Any]:
    """Fields of a user's row."""
    return {"omeName": name, "firstName": name.title(), "lastName": "Loopback", "ldap": False}


def membership(user: int, group: int) -> Row:
    """The row that puts a user into a group."""
    fields = {"parent": Ref("ExperimenterGroup", group), "child": Ref("Experimenter", user)}
    return Row("GroupExperimenterMap", 0, fields | {"owner": False})
