"""Parses the HQL that the loopback server takes, and refuses all else.

A server that took more than OMERO does would let wrong code pass, so each clause is one that
OMERO's own clients send to real servers, and every name is checked against the model:

==============================================  ===================================================
``select w from Well as w``                     omero-py ``gateway/__init__.py``, getWells queries
``from PixelsType as p``                         omero-py ``createImageFromNumpySeq``
``select w.id, img.name from …``                omero-web ``webgateway/plategrid.py``, metadata
``select distinct w.id from …``                 omero-web ``webclient/show.py``, ShowObject
``select lc.emissionWave.value``                omero-py ``ImageWrapper.getChannelLabels``
``select index(ws)``, ``order by index(c)``     omero-web ``plategrid.py``; ``getChannelLabels``
``select count(image.id)``                      omero-web ``webclient/tree.py``, marshal_orphaned
``select max(row) from Well where …``           omero-py ``PlateWrapper.getGridSize``
``select minIndex(ws), maxIndex(ws)``           omero-py ``PlateWrapper.getNumberOfFields``
``join``, ``left outer join``, with ``fetch``   omero-py ``gateway/__init__.py``, everywhere
``join fetch obj.details.owner``                omero-py ``BlitzObjectWrapper._getQueryString``
``join l.child as a join a.file as f``          omero-server ``AdminImpl``; omero-web
``where x.id = :id and y.ns in (:ns)``          omero-py ``getAnnotationLinks``
``where w.plate.id = :id``                      omero-py ``PlateWrapper._listChildren``
``where ch.class = FileAnnotation``             omero-web ``tree.py``, marshal_annotations
``where obj.name like :name``, ``is null``      omero-py ``buildQuery``; ``tree.py``
``where index(ws) = :field``                    omero-web ``plategrid.py``
``order by obj.name asc, obj.id``               omero-py ``getObjects``
==============================================  ===================================================

As Hibernate does, it refuses ``fetch`` in a projection, of a collection whose owner is not
selected, and a collection in the middle of a path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import omero

from .schema import DETAILS, ORDERED, TO_MANY, TO_ONE, scalars

_TOKEN = re.compile(r"\s*(:?[A-Za-z_][\w.]*|\d+|'[^']*'|<>|!=|<=|>=|[=<>(),])")
_FUNCTIONS = ("count", "index", "max", "min", "minindex", "maxindex")
_QUANTITIES = ("physicalSize", "emissionWave", "excitationWave", "posX", "posY", "wellOrigin")
_NOT_ALIASES = frozenset(
    ("as", "join", "left", "inner", "outer", "fetch", "where", "order", "on", "group")
)


@dataclass(frozen=True, slots=True)
class Path:
    """``w.plate.id``: an alias and attributes of it."""

    alias: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One selected value, perhaps of a function."""

    path: Path
    function: str = ""


@dataclass(frozen=True, slots=True)
class Join:
    """``left outer join fetch owner.attribute as alias``."""

    path: Path
    alias: str
    outer: bool
    fetch: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """``left operator right``; `right` is a path, a ``:name`` or a literal."""

    left: Item
    operator: str
    right: Path | str | int | None


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was understood and fits the model."""

    kind: str
    alias: str
    items: tuple[Item, ...]
    distinct: bool
    joins: tuple[Join, ...]
    conditions: tuple[Condition, ...]
    order: tuple[tuple[Item, bool], ...]
    kinds: dict[str, str]
    """Alias -> kind."""


def parse(text: str, *, projection: bool) -> Query:
    """Understand a query, or refuse it.

    Raises:
        omero.QueryException: as a server does, or because OMERO's clients send no such clause.
    """
    return _Parser(text, projection).query()


class _Parser:
    def __init__(self, text: str, projection: bool) -> None:
        self.text, self.projection = " ".join(text.split()), projection
        self.tokens: list[str] = []
        at = 0
        while at < len(self.text):
            match = _TOKEN.match(self.text, at)
            if match is None:
                raise self.refuse(f"unexpected {self.text[at : at + 10]!r}")
            self.tokens.append(match[1])
            at = match.end()
        self.at = 0
        self.kinds: dict[str, str] = {}

    def refuse(self, why: str) -> Exception:
        error: Exception = omero.QueryException(message=f"{why} [{self.text}]")
        return error

    def peek(self) -> str:
        return self.tokens[self.at].lower() if self.at < len(self.tokens) else ""

    def take(self) -> str:
        if self.at >= len(self.tokens):
            raise self.refuse("unexpected end")
        self.at += 1
        return self.tokens[self.at - 1]

    def taken(self, *words: str) -> bool:
        """Take `words` if they come next."""
        if [t.lower() for t in self.tokens[self.at : self.at + len(words)]] != list(words):
            return False
        self.at += len(words)
        return True

    def need(self, word: str) -> None:
        if not self.taken(word):
            raise self.refuse(f"expecting {word!r}")

    def query(self) -> Query:
        distinct = False
        items: tuple[Item, ...] = ()
        if self.taken("select"):
            distinct = self.taken("distinct")
            items = self.items()
        self.need("from")
        kind = self.take()
        if kind not in TO_ONE:
            raise self.refuse(f"{kind} is not mapped")
        alias = self.alias(kind, needed=not items)
        self.kinds[alias] = kind
        items = tuple(map(self.rooted, items)) or (Item(Path(alias)),)
        joins = tuple(self.joins())
        conditions = tuple(self.conditions()) if self.taken("where") else ()
        order = tuple(self.order()) if self.taken("order", "by") else ()
        if self.at < len(self.tokens):
            raise self.refuse(f"unexpected token: {self.take()}")
        for item in (*items, *(c.left for c in conditions), *(i for i, _ in order)):
            self.check(item)
        for condition in conditions:
            if isinstance(condition.right, Path):
                self.check(Item(condition.right))
        self.check_selection(items, joins)
        return Query(kind, alias, items, distinct, joins, conditions, order, self.kinds)

    def rooted(self, item: Item) -> Item:
        """`item` with its path from the root where that has no alias."""
        path = item.path
        if "" in self.kinds and path.alias not in self.kinds:
            return Item(Path("", (path.alias, *path.parts)), item.function)
        return item

    def items(self) -> tuple[Item, ...]:
        found = [self.item()]
        while self.taken(","):
            found.append(self.item())
        return tuple(found)

    def item(self) -> Item:
        name = self.take()
        if name.lower() in _FUNCTIONS and self.taken("("):
            self.taken("distinct")
            item = Item(self.path(self.take()), name.lower())
            self.need(")")
            return item
        return Item(self.path(name))

    def path(self, token: str) -> Path:
        if not re.fullmatch(r"[A-Za-z_][\w.]*", token):
            raise self.refuse(f"unexpected token: {token}")
        alias, *parts = token.split(".")
        return Path(alias, tuple(parts))

    def alias(self, kind: str, *, needed: bool = True) -> str:
        explicit = self.taken("as")
        if not explicit and (self.peek() in _NOT_ALIASES or not self.peek()):
            if needed:
                raise self.refuse("give the entity an alias")
            return ""
        name = self.take()
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in self.kinds:
            raise self.refuse(f"{name} is no alias, or is used twice")
        self.kinds[name] = kind
        return name

    def joins(self) -> list[Join]:
        found: list[Join] = []
        while True:
            outer = self.taken("left", "outer") or self.taken("left")
            if not outer:
                self.taken("inner")
            if not self.taken("join"):
                if outer:
                    raise self.refuse("expecting 'join'")
                return found
            fetch = self.taken("fetch")
            path = self.path(self.take())
            kind = self.target(path)
            alias = self.alias(kind, needed=False) or f"_{len(found)}"
            self.kinds.setdefault(alias, kind)
            found.append(Join(path, alias, outer, fetch))

    def target(self, path: Path) -> str:
        """The kind that a join of `path` leads to."""
        kind = self.kind_at(path.alias, path.parts[:-1])
        name = path.parts[-1] if path.parts else ""
        if path.parts[:-1] == ("details",):
            if name not in DETAILS:
                raise self.refuse(f"could not resolve property: {name} of details")
            return DETAILS[name]
        many = TO_MANY.get(kind, {}).get(name)
        one = TO_ONE[kind].get(name)
        if one is None and kind == "Annotation" and name == "file":
            one = "OriginalFile"  # Hibernate finds properties of derived classes here
        if many is None and one is None:
            raise self.refuse(f"could not resolve property: {name} of: {kind}")
        return many[0] if many else str(one)

    def kind_at(self, alias: str, parts: tuple[str, ...]) -> str:
        if alias not in self.kinds:
            raise self.refuse(f"{alias} is not an alias")
        kind = self.kinds[alias]
        for i, part in enumerate(parts):
            if part == "details":
                if len(parts) > i + 1:
                    return DETAILS.get(parts[i + 1], "")
                return kind
            if part in TO_MANY.get(kind, {}):
                raise self.refuse(f"illegal attempt to dereference collection {part}")
            if part not in TO_ONE[kind]:
                raise self.refuse(f"could not resolve property: {part} of: {kind}")
            kind = TO_ONE[kind][part]
        return kind

    def check(self, item: Item) -> None:
        """Refuse a path that the model does not have."""
        path = item.path
        if item.function in ("index", "minindex", "maxindex"):
            if path.parts or path.alias not in self.kinds:
                raise self.refuse("index() takes the alias of a joined collection")
            return
        if is_quantity(path.parts):
            kind = self.kind_at(path.alias, path.parts[:-2])
            if path.parts[-2] in scalars(kind):
                return
        kind = self.kind_at(path.alias, path.parts[:-1])
        last = path.parts[-1] if path.parts else "id"
        if last in TO_MANY.get(kind, {}):
            raise self.refuse(f"{last} is a collection; join it")
        known = {"id", "version", "class", *scalars(kind), *TO_ONE[kind]}
        if path.parts[:1] == ("details",):
            known |= set(DETAILS)
        if last not in known:
            raise self.refuse(f"could not resolve property: {last} of: {kind}")

    def check_selection(self, items: tuple[Item, ...], joins: tuple[Join, ...]) -> None:
        whole = len(items) == 1 and not items[0].path.parts and not items[0].function
        if not self.projection and not whole:
            raise self.refuse("a query for objects selects one alias; use projection()")
        selected = {items[0].path.alias} if whole else set()
        for join in joins:
            if not join.fetch:
                continue
            if self.projection or join.path.alias not in selected:
                raise self.refuse(
                    "query specified join fetching, but the owner of the fetched association was "
                    "not present in the select list"
                )
            selected.add(join.alias)

    def conditions(self) -> list[Condition]:
        found = [self.condition()]
        while self.taken("and"):
            found.append(self.condition())
        return found

    def condition(self) -> Condition:
        left = self.rooted(self.item())
        if self.taken("is", "not", "null"):
            return Condition(left, "is not", None)
        if self.taken("is", "null"):
            return Condition(left, "is", None)
        operator = self.take().lower()
        if operator == "in":
            inner = self.taken("(")
            right = self.value()
            if inner:
                self.need(")")
            return Condition(left, operator, right)
        if operator not in ("=", "!=", "<>", "<", ">", "<=", ">=", "like"):
            raise self.refuse(f"unexpected token: {operator}")
        return Condition(left, operator, self.value())

    def value(self) -> Path | str | int:
        parenthesis = self.taken("(")
        token = self.take()
        if parenthesis:
            self.need(")")
        if token.startswith((":", "'")):
            return token
        return int(token) if token.isdecimal() else self.class_or_path(token)

    def class_or_path(self, token: str) -> Path | str:
        return f"'{token}'" if token in TO_ONE else self.path(token)

    def order(self) -> list[tuple[Item, bool]]:
        found = []
        while True:
            item = self.rooted(self.item())
            descending = self.taken("desc")
            if not descending:
                self.taken("asc")
            found.append((item, descending))
            if not self.taken(","):
                return found


def is_quantity(parts: tuple[str, ...]) -> bool:
    """Whether a path ends in the number of a value with a unit."""
    return parts[-1:] == ("value",) and len(parts) > 1 and parts[-2].startswith(_QUANTITIES)


def is_ordered(kind: str, name: str) -> bool:
    """Whether members of this collection have an index."""
    return (kind, name) in ORDERED
