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
    uv run pytest

# All tests with those of OMERO; compiles zeroc-ice the first time (a C++ compiler, OpenSSL, bzip2)
test-omero:
    uv run --extra omero pytest

# The tests of an everyday change, under five minutes
quick:
    uv run pytest -m "not slow"

# Power cuts and NFS, in kernels that run as processes (Debian: user-mode-linux), some four minutes
power:
    uv run pytest -m power

# The example, as a newcomer runs it
demo dir="demo":
    uv run polystore-flows demo {{dir}}
