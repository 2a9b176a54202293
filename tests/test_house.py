"""The house keeps its order: imports go down only, files stay short, the import is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "polystore_flows"
PLUGIN = ROOT / "snakemake_storage_plugin" / "snakemake_storage_plugin_polystore"
MOST_LINES = 420

# From the ground up. A module imports from floors below its own, and from its own.
FLOORS = [
    {"_version", "errors", "redaction", "settings"},
    {"credentials", "uri", "threads", "hcs"},
    {"contracts"},
    {"registry"},
    {"api", "metadata", "steps"},
    {"backends"},
    {"transfer", "testing"},
    {"report", "serve", "snakemake"},
    {"flows"},
    {"demo", "omero_cli"},
    {"cli"},
]
SHARED_BY_BACKENDS = {
    "codecs", "file_bytes", "files", "folder_contents", "folder_plate", "folder_writer",
    "pixel_size", "tables", "tiff",
}  # fmt: skip


def _floor(part: str) -> int:
    for number, parts in enumerate(FLOORS):
        if part in parts:
            return number
    raise AssertionError(f"polystore_flows/{part} has no floor; give it one in {__file__}")


def _imports(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and dotted parts below ``polystore_flows`` of each import from our own package."""
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            names = [[*base, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "polystore_flows" and len(name) > 1:
                yield node.lineno, name[1:]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def test_imports_go_down_only() -> None:
    wrong = []
    for path in _files(PACKAGE):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        for line, name in _imports(path):
            if name[0].startswith("__") or name[0] == part:
                continue
            if _floor(name[0]) >= _floor(part):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {'.'.join(name)}")
    assert wrong == []


def test_every_part_of_the_house_has_a_floor() -> None:
    for path in PACKAGE.iterdir():
        if path.suffix == ".py" or (path.is_dir() and _files(path)):
            part = path.name.removesuffix(".py")
            if not part.startswith("__"):
                _floor(part)


def test_backends_do_not_import_each_other() -> None:
    wrong = []
    for path in _files(PACKAGE / "backends"):
        own = path.relative_to(PACKAGE / "backends").parts[0].removesuffix(".py")
        for line, name in _imports(path):
            if name[0] != "backends" or len(name) < 2 or name[1] == own:
                continue
            if name[1] not in SHARED_BY_BACKENDS:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {'.'.join(name)}")
    assert wrong == []


def test_the_plugin_never_imports_flows() -> None:
    assert _files(PLUGIN)
    for path in _files(PLUGIN):
        assert not [name for _, name in _imports(path) if name[0] == "flows"], path


@pytest.mark.parametrize("folder", [PACKAGE, PLUGIN], ids=["package", "plugin"])
def test_no_file_outgrows_its_room(folder: Path) -> None:
    long = {
        p.name: n for p in _files(folder) if (n := len(p.read_text().splitlines())) > MOST_LINES
    }
    assert long == {}


def test_every_module_says_what_it_holds() -> None:
    for folder in (PACKAGE, PLUGIN):
        for path in _files(folder):
            assert ast.get_docstring(ast.parse(path.read_text())), path


def _loaded_by(code: str) -> set[str]:
    code += "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"numpy", "zarr", "prefect", "omero", "snakemake", "pandas", "pydantic"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    """The verbs, the registry and the contracts too; a backend loads when it is asked for."""
    code = "import polystore_flows as ps; ps.load, ps.storage_registry.names()"
    assert _loaded_by(code) & HEAVY == set()


def test_importing_the_flows_does_not_load_prefect() -> None:
    """The command line imports them; only what is used is loaded."""
    code = "import polystore_flows.cli, polystore_flows.flows as f; dir(f)"
    assert "prefect" not in _loaded_by(code)


def test_importing_the_plugin_loads_neither_zarr_numpy_nor_prefect() -> None:
    """Snakemake imports every plugin at every start. What its own interface loads is not ours."""
    theirs = _loaded_by("import snakemake_interface_storage_plugins.storage_object")
    ours = _loaded_by("import snakemake_storage_plugin_polystore")
    assert (ours - theirs) & HEAVY == set()


def test_every_public_name_is_there_and_documented() -> None:
    import polystore_flows as ps
    import polystore_flows.flows as flows

    for module in (ps, flows):
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                assert value.__doc__, name
        assert set(module.__all__) <= set(dir(module))
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            module.nothing  # noqa: B018
