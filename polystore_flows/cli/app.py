"""The commands by name, and what ends a run: status and one line of error."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from ..errors import AddressError, PolystoreError, UnknownBackendError, URIError
from . import check, copy, demo, look, report, serve
from .output import INTERRUPTED, fail

LATER = {
    "deploy": ("polystore_flows.flows.cli:app", "Run flows on a schedule, on an event, elsewhere."),
    "omero": ("polystore_flows.omero_cli:app", "Start, try and look at OMERO servers."),
}
"""Groups of commands that are imported when they are asked for: name -> ``module:app``, help."""

# Typer bundles Click or imports it, depending on its version: find the base of usage errors.
_UsageError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


class _LaterGroup(TyperGroup):
    """A Typer app that is imported when one of its commands is listed or run."""

    def __init__(self, name: str, target: str, help_text: str) -> None:
        super().__init__(name=name, help=help_text, no_args_is_help=True)
        self._target = target

    @cached_property
    def _loaded(self) -> TyperGroup:
        module, _, name = self._target.partition(":")
        return typer.main.get_group(getattr(importlib.import_module(module), name))

    def list_commands(self, ctx: Any) -> list[str]:
        return self._loaded.list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return self._loaded.get_command(ctx, cmd_name)


class _Root(TyperGroup):
    """The commands of this package and the groups of `LATER`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *LATER]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in LATER:
            return _LaterGroup(cmd_name, *LATER[cmd_name])
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=_Root,
    help="Storage backends for high-content-screening plates.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(look.backends)
app.command()(look.info)
app.command("ls")(look.list_)
app.command()(copy.cp)
app.command()(check.check)
app.command()(report.report)
app.command()(serve.serve)
app.command()(demo.demo)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words or bool(os.environ.get("POLYSTORE_DEBUG"))
    try:
        status = app(
            [word for word in words if word != "--debug"],
            prog_name="polystore-flows",
            standalone_mode=False,
        )
    except _UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]
        fail(f"{message} (see polystore-flows --help)", 2)
    except (PolystoreError, OSError) as error:
        if debug:
            raise
        malformed = isinstance(error, URIError | UnknownBackendError)
        fail(str(error), 2 if malformed and not isinstance(error, AddressError) else 1)
    except KeyboardInterrupt:
        status = INTERRUPTED
    if status == INTERRUPTED:
        fail("interrupted", INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"polystore-flows {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole trace of an error.")
    ] = False,
) -> None:
    """Storage backends for high-content-screening plates."""
