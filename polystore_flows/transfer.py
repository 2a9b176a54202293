"""Copy a plate, a well, a field, a label image or a file between any two URIs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from . import api
from .errors import (
    AlreadyExistsError,
    MismatchError,
    NotFoundError,
    TransferError,
    UnknownLayoutError,
    UnsupportedError,
    URIError,
)
from .hcs.address import TEXT_SUFFIXES, Address, parse_address, split_plate_path
from .hcs.plate import Plate
from .registry import backend_for
from .settings import get_settings
from .uri import BackendURI, parse_uri

Progress = Callable[[int, int, str], object]

# Documents by which a backend describes its own plate; the target writes its own.
_OWN_DOCUMENTS = ("zarr.json", "openhcs_metadata.json")


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What one copy did."""

    source: str
    """Its URI, as it may be shown."""
    target: str
    """Its URI, as it may be shown."""
    kind: str
    """``plate``, ``well``, ``field``, ``label``, ``directory`` or ``file``."""
    copied: tuple[str, ...] = ()
    """Wells (of a plate) or addresses and paths that were written."""
    skipped: tuple[str, ...] = ()
    """Those that were there already, complete and unchanged."""


def copy(
    src: api.URI,
    dst: api.URI,
    workers: int | None = None,
    wells: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CopyReport:
    """Copy what is stored at `src` to `dst`, from any backend to any other.

    A plate is copied well by well, several at a time, and each well is written whole or not at
    all, with its label images; then the tables and texts below the plate. A well or a field goes
    to the same address if `dst` names a plate, which is made like the source's where it is
    missing. Only full size is read: the target makes its own pyramid.

    An interrupted copy is resumed by the same call: a well that is unchanged is skipped. It
    counts as unchanged if the target has the same fields, shapes and dtypes and the source's
    label images, was not written before the source was, and holds the same pixels in one plane
    (the first field's first channel, middle z). Any other well that is there already is an error
    before anything is written, so that no plate is mixed into another; `overwrite` copies all
    again.

    Args:
        src: of a plate, a well, a field, a label image, selected planes, a folder or a file.
        dst: the same kind; a plate for a well or a field; a file for an array.
        workers: wells at a time, and so wells in memory; ``POLYSTORE_WORKERS`` or the number of
            cores by default.
        wells: those of a plate to copy; all by default.
        overwrite: whether what is there already is replaced.
        progress: called as ``progress(done, total, well)`` in the caller's thread.

    Raises:
        NotFoundError: nothing is at `src`, or the plate lacks one of `wells`.
        MismatchError: source and target are the same, or the target is another kind of plate.
        AlreadyExistsError: something else is there and `overwrite` is false; nothing was written.
        TransferError: some wells failed, listed with the cause; the others are complete.
    """
    source, target = parse_uri(src), parse_uri(dst)
    _check_distinct(source, target)
    plate = plate_at(source)
    if plate is not None:
        return _PlateCopy(plate, source, target, overwrite).run(wells, workers, progress)
    if wells is not None:
        raise MismatchError(f"{source} is no plate, so there are no wells to choose")
    kind = "array" if _planes(source) else api.stat(source).kind
    if kind in ("well", "field", "label"):
        return _copy_part(source, target, overwrite)
    if kind == "directory":
        return _copy_folder(source, target, overwrite)
    name = PurePosixPath(target.path).name
    wrote = _copy_file(source, target, overwrite)
    return CopyReport(str(source), str(target), kind, *(((name,), ()) if wrote else ((), (name,))))


class _PlateCopy:
    """One plate on its way to another URI."""

    def __init__(
        self, plate: Plate, source: BackendURI, target: BackendURI, overwrite: bool
    ) -> None:
        if split_plate_path(target.path)[1]:
            raise MismatchError(f"{source} is a plate, but {target} names a place inside one")
        self.source, self.target, self.overwrite = source, target, overwrite
        self.from_plate = plate

    def run(
        self, wells: Sequence[str] | None, workers: int | None, progress: Progress | None
    ) -> CopyReport:
        """Copy what is not there yet."""
        names = self.from_plate.wells if wells is None else wells
        chosen = list(dict.fromkeys(self.from_plate[name].path for name in names))
        self.to_plate = api.create_plate(self.target, like=self.from_plate, exist_ok=True)
        done: list[str] = []

        def finished(well: str) -> None:
            done.append(well)
            if progress is not None:
                progress(len(done), len(chosen), well)

        with _Pool(workers or get_settings().workers or os.cpu_count() or 1) as pool:
            skipped = [] if self.overwrite else self._unchanged(pool, chosen)
            for well in skipped:
                finished(well)
            jobs = {well: pool.submit(self._copy_well, well) for well in chosen if well not in done}
            try:
                failed = dict(_failures(jobs, finished))
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                complete = len(skipped) + sum(_succeeded(job) for job in jobs.values())
                raise KeyboardInterrupt(
                    f"{complete} of {len(chosen)} wells are complete in {self.target}; "
                    "run the same copy again to resume"
                ) from None
        failed |= self._copy_files(set(chosen), whole=wells is None)
        if failed:
            raise TransferError(
                f"{self.target}: {len(failed)} parts could not be copied, the rest is complete; "
                "run the same copy again for them: "
                + "; ".join(f"{name} ({error})" for name, error in failed.items())
            ) from ExceptionGroup("what failed", list(failed.values()))
        copied = tuple(well for well in chosen if well in jobs)
        return CopyReport(str(self.source), str(self.target), "plate", copied, tuple(skipped))

    def _unchanged(self, pool: ThreadPoolExecutor, chosen: list[str]) -> list[str]:
        there = [well for well in chosen if well in self.to_plate]
        same = dict(zip(there, pool.map(self._is_unchanged, there), strict=True))
        other = [well for well in there if not same[well]]
        if other:
            raise AlreadyExistsError(
                f"{self.target} holds other data in {_some(other)} than {self.source}; pass "
                "overwrite=True (--overwrite) to replace, or choose other wells or another target"
            )
        return there

    def _is_unchanged(self, well: str) -> bool:
        old, new = self.from_plate[well], self.to_plate[well]
        if old.fields != new.fields:
            return False
        for field in old.fields:
            a, b = old.image(field), new.image(field)
            if (a.shape, a.dtype) != (b.shape, b.dtype) or set(a.labels) - set(b.labels):
                return False
        there, here = _mtime(self.target, new.path), _mtime(self.source, old.path)
        if there is not None and here is not None and there < here:
            return False
        a, b = old.image(old.fields[0]), new.image(new.fields[0])
        z = a.shape[2] // 2
        return bool((a.plane(z=z) == b.plane(z=z)).all())

    def _copy_well(self, well: str) -> None:
        _write_fields(self.from_plate, well, None, self.to_plate, well, self.overwrite)

    def _copy_files(self, wells: set[str], *, whole: bool) -> dict[str, Exception]:
        """Tables and texts of the plate (if the `whole` of it is copied) and of `wells`."""
        failed: dict[str, Exception] = {}
        for path in _text_files(self.source):
            well = _well_of(path, self.from_plate)
            if (well not in wells) if well else not whole:
                continue
            try:
                _copy_file(self.source.join(path), self.target.join(path), self.overwrite)
            except (OSError, ValueError) as error:  # as are all PolystoreErrors of load and save
                failed[path] = error
        return failed


class _Pool(ThreadPoolExecutor):
    """A pool that drops what has not begun when its block is left by an exception."""

    def __exit__(self, *exc: Any) -> None:
        self.shutdown(cancel_futures=exc[0] is not None)


def _failures(
    jobs: dict[str, Future[None]], finished: Callable[[str], None]
) -> Iterator[tuple[str, Exception]]:
    name = {job: well for well, job in jobs.items()}
    for job in as_completed(name):
        error = job.exception()
        if isinstance(error, Exception):
            yield name[job], error
        elif error is not None:
            raise error
        finished(name[job])


def _succeeded(job: Future[None]) -> bool:
    return job.done() and not job.cancelled() and job.exception() is None


def _copy_part(source: BackendURI, target: BackendURI, overwrite: bool) -> CopyReport:
    """A well, a field or a label image."""
    plate, address = plate_of(source)
    to_path, to_inner = split_plate_path(target.path)
    is_file = not to_inner and PurePosixPath(to_path).suffix not in ("", ".zarr")
    if is_file and address.kind != "well":
        api.save(api.load(source), target, overwrite=overwrite)
        return CopyReport(str(source), str(target), address.kind, (PurePosixPath(to_path).name,))
    goal = parse_address(to_inner, _planes(target)) if to_inner else address
    if goal.kind != address.kind:
        raise MismatchError(
            f"{source} is a {address.kind}, but {target} names a {goal.kind}; "
            "give a target of the same kind, or a plate"
        )
    to_uri = _plate_uri(target, to_path)
    try:
        to_plate = api.open_plate(to_uri, "r+")  # of any layout, if it has the well
    except NotFoundError:
        to_plate = api.create_plate(to_uri, like=plate, exist_ok=True)
    well, to_well = str(address.well), str(goal.well)
    if address.label is not None:
        mask = plate[well].image(str(address.field)).label(address.label).read()
        to_plate.write_label(to_well, str(goal.field), str(goal.label), mask, overwrite=overwrite)
    elif address.field is not None:
        _write_fields(plate, well, (address.field, str(goal.field)), to_plate, to_well, overwrite)
    else:
        _write_fields(plate, well, None, to_plate, to_well, overwrite)
    return CopyReport(str(source), str(target), address.kind, (str(goal),))


def _write_fields(
    plate: Plate,
    well: str,
    field: tuple[str, str] | None,
    to_plate: Plate,
    to_well: str,
    overwrite: bool,
) -> None:
    """Write a well, or one `field` of it under another name, with its label images."""
    images, labels = plate[well].read(None if field is None else [field[0]])
    names = dict([field] if field else [(name, name) for name in images])
    to_plate.write_well(
        to_well,
        {new: images[old] for old, new in names.items()},
        {new: labels[old] for old, new in names.items()},
        overwrite=overwrite,
        keep_others=field is not None,
        **plate[well].notes(names, to_plate),
    )


def _copy_folder(source: BackendURI, target: BackendURI, overwrite: bool) -> CopyReport:
    failed: dict[str, Exception] = {}
    copied: list[str] = []
    skipped: list[str] = []
    for uri in api.list_files(source, recursive=True):
        path = _relative(uri, source)
        try:
            wrote = _copy_file(source.join(path), target.join(path), overwrite)
            (copied if wrote else skipped).append(path)
        except (OSError, ValueError) as error:
            failed[path] = error
    if failed:
        raise TransferError(
            f"{target}: {len(failed)} files could not be copied, the rest is complete: "
            + "; ".join(f"{name} ({error})" for name, error in failed.items())
        ) from ExceptionGroup("what failed", list(failed.values()))
    return CopyReport(str(source), str(target), "directory", tuple(copied), tuple(skipped))


def _copy_file(source: BackendURI, target: BackendURI, overwrite: bool) -> bool:
    """Copy one file; False if it is there already with the same content. Atomic."""
    if not overwrite and api.exists(target):
        if _equal(api.load(source), api.load(target)):
            return False
        raise AlreadyExistsError(
            f"{target} holds other data than {source}; pass overwrite=True (--overwrite) to replace"
        )
    reads, writes = backend_for(source), backend_for(target)
    if hasattr(reads, "read_bytes") and hasattr(writes, "write_bytes") and not _planes(source):
        # Byte for byte, with what a codec would leave out.
        writes.write_bytes(reads.read_bytes(source.text), target.text, overwrite=overwrite)
    else:
        api.save(api.load(source), target, overwrite=overwrite)
    return True


def _equal(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if hasattr(a, "equals"):  # a data frame
        return bool(a.equals(b))
    same = a == b
    return bool(same.all()) if hasattr(same, "all") else bool(same)


def plate_at(uri: BackendURI) -> Plate | None:
    """The plate that `uri` names, or None if it names a part of one, or no plate at all."""
    if split_plate_path(uri.path)[1] or _planes(uri):
        return None
    try:
        return api.open_plate(uri)
    except (NotFoundError, UnsupportedError, UnknownLayoutError):
        return None


def plate_of(uri: BackendURI) -> tuple[Plate, Address]:
    """The opened plate around `uri`, and what `uri` names in it."""
    path, inner = split_plate_path(uri.path)
    return api.open_plate(_plate_uri(uri, path)), parse_address(inner, _planes(uri))


def _planes(uri: BackendURI) -> tuple[tuple[str, str], ...]:
    """The part of the query that selects planes; `pattern=` belongs to the plate."""
    return tuple(pair for pair in uri.query if pair[0] != "pattern")


def _plate_uri(uri: BackendURI, path: str) -> BackendURI:
    """`uri` with another path, and of its query what belongs to the plate."""
    return replace(uri, path=path, query=tuple(p for p in uri.query if p[0] == "pattern"))


def _text_files(uri: BackendURI) -> Iterator[str]:
    """Paths below the plate of its tables and texts, without the documents of the format."""
    try:
        found = backend_for(uri).list_files(uri.at(uri.path).text, None, TEXT_SUFFIXES, True)
    except UnsupportedError:
        return
    for identifier in found:
        path = _relative(identifier, uri)
        parts = path.split("/")
        if parts[-1] not in _OWN_DOCUMENTS and not any(part.startswith(".") for part in parts):
            yield path


def _relative(identifier: str, root: BackendURI) -> str:
    path = parse_uri(identifier).path if ":" in identifier else identifier
    return path.removeprefix(root.path).strip("/")


def _well_of(path: str, plate: Plate) -> str | None:
    """Stored path of the well that the file at `path` belongs to."""
    parts = path.split("/")
    try:
        return plate.find("/".join(parts[:2])) if len(parts) > 2 else None
    except URIError:
        return None


def _mtime(plate: BackendURI, well: str) -> float | None:
    try:
        return api.stat(_plate_uri(plate, f"{plate.path}/{well}")).mtime
    except UnsupportedError:
        return None


def _check_distinct(source: BackendURI, target: BackendURI) -> None:
    here, there = _identity(source), _identity(target)
    if here == there:
        raise MismatchError(f"{source} cannot be copied onto itself")
    inside = here[:2] == there[:2] and f"{there[2]}/".startswith(f"{here[2]}/")
    if inside:
        raise MismatchError(f"{target} lies inside {source}, which would be copied into itself")


def _identity(uri: BackendURI) -> tuple[str, str, str]:
    """Store, root and path, equal for two URIs of one place."""
    plate, inner = split_plate_path(uri.path)
    with suppress(URIError):  # a path that is no address of a plate
        inner = str(parse_address(inner, _planes(uri)))
    if uri.is_local:
        plate = os.path.realpath(plate)
    store = "local" if uri.is_local else uri.transport or uri.backend
    return store, uri.authority, f"{plate}/{inner}".rstrip("/")


def _some(items: list[str], most: int = 8) -> str:
    shown = ", ".join(items[:most])
    return f"{shown} … ({len(items)} wells)" if len(items) > most else shown
