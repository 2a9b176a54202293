"""Task runners by a word: threads, processes, or Dask."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prefect import Task
from prefect.futures import as_completed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from polystore_flows.errors import MismatchError, MissingDependencyError, UnsupportedError
from polystore_flows.settings import get_settings
from polystore_flows.uri import parse_uri

_NAMED = re.compile(r"(threads|processes|dask)(?::(\d+))?")
_ADDRESS = re.compile(r"(?:dask:)?((?:tcp|tls|ucx|ws|wss)://.+)")


def make_runner(runner: str) -> TaskRunner[Any]:
    """The task runner that `runner` names.

    Args:
        runner: ``threads``, ``processes`` or ``dask`` (a cluster of this host), each maybe with
            ``:N`` workers (``POLYSTORE_WORKERS``, or one a core, by default); or the address of
            a Dask scheduler, ``tcp://host:8786``. A script that uses processes or Dask guards
            its start by ``if __name__ == "__main__":``.

    Raises:
        MismatchError: none of these.
        MissingDependencyError: prefect-dask is not installed.
    """
    address, named = _ADDRESS.fullmatch(runner), _NAMED.fullmatch(runner)
    if address:
        return _dask(address=address[1])
    if not named or named[2] == "0":
        raise MismatchError(
            f"{runner!r} is no runner; there are threads, processes, dask (each maybe with :N) "
            "and the address of a Dask scheduler, tcp://host:8786"
        )
    workers = int(named[2] or get_settings().workers or os.cpu_count() or 1)
    if named[1] == "threads":
        return ThreadPoolTaskRunner(max_workers=workers)
    if named[1] == "processes":
        return ProcessPoolTaskRunner(max_workers=workers)
    cluster = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    return _dask(cluster_kwargs=cluster)


def run_all(
    runner: str, work: Task[..., Any], calls: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[int, Any]]:
    """Run a task with each of `calls`; the number of the call and its result, as they end.

    A call that failed gives its exception. One process that dies takes all of a process pool with
    it, and what had not ended yet gives that as its exception.

    Args:
        runner: see `make_runner`.
        work: the task.
        calls: its arguments, all of them, by name.
    """
    if not calls:
        return
    with make_runner(runner) as active:
        numbers = {active.submit(work, parameters=dict(c)): i for i, c in enumerate(calls)}
        for future in as_completed(list(numbers)):
            try:
                yield numbers[future], future.result(raise_on_failure=False)
            except Exception as error:  # noqa: BLE001 - whatever ended the worker
                yield numbers[future], error


def check_reach(runner: str, *uris: str) -> None:
    """Raise `UnsupportedError` for a plate in memory that other processes would not see."""
    for uri in uris:
        parsed = parse_uri(uri)
        if "memory" in (parsed.backend, parsed.transport) and not runner.startswith("threads"):
            raise UnsupportedError(
                f"{parsed} lies in the memory of this process; use runner='threads', or a store "
                "that other processes can reach"
            )


def _dask(**options: Any) -> TaskRunner[Any]:
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"dask: needs the module {error.name!r}, which is not installed; "
            "run pip install 'polystore-flows[prefect]'"
        ) from error
    made: TaskRunner[Any] = DaskTaskRunner(**options)
    return made
