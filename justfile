# What a developer needs; each line is also what .ci/run does.

# Format and lint
lint:
    uv run ruff format --check .
    uv run ruff check .

# Static types
types:
    uv run mypy

# All tests
test:
    uv run pytest -n auto

# All tests with those of OMERO; compiles zeroc-ice the first time (a C++ compiler, OpenSSL, bzip2)
test-omero:
    uv run --extra omero pytest

# The tests of an everyday change, under five minutes
quick:
    uv run pytest -n auto -m "not slow"

# Power cuts and NFS, in kernels that run as processes (Debian: user-mode-linux), some four minutes
power:
    uv run pytest -m power

# The example, as a newcomer runs it
demo dir="demo":
    uv run polystore-flows demo {{dir}}

# The documentation, on http://127.0.0.1:8000
docs:
    uv run mkdocs serve

# Change notes, both distributions and their check; see CONTRIBUTING.md
release:
    uv run towncrier build --yes
    uv run python -m build --outdir dist .
    uv run python -m build --outdir dist snakemake_storage_plugin
    uv run twine check --strict dist/*
