"""Which queries the plugin takes, and where their local copies lie."""

from __future__ import annotations

import re
from itertools import permutations
from pathlib import PurePosixPath

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from plugin_rig import make_provider
from snakemake.io import apply_wildcards, regex_from_filepattern
from snakemake_storage_plugin_polystore import StorageProvider
from snakemake_storage_plugin_polystore.local import local_suffix
from snakemake_storage_plugin_polystore.query import by_reference, refusal

GOOD = [
    "zarr:///d/p.zarr",
    "zarr:relative/p.zarr/B/3",
    "zarr:///d/{plate}.zarr/{well}/0",
    "zarr:///d/{plate}.zarr/{row}/{column}",
    "zarr:///d/p.zarr/{well,[A-H]/[0-9]+}/0/labels/{name}",
    "zarr:///d/p.zarr/B/03/0?c=DAPI&z=3",
    "zarr:///d/p.zarr/B/03/0?c={channel}",
    "zarr:///d/p.zarr/tables/{name}.csv",
    "zarr+s3://bucket/p.zarr/B/03",
    "disk:///raw/plate1/B/03/0",
    "disk:raw/{sample}.tif",
    "disk:///a folder/100% #1.tif",
    "file:///raw/a.tif",
    "omero://host/plate/12/B/03/0",
    "omero://host:4064/plate/{plate}/{well}/0",
]

BAD = {
    "zarr:///d/p.zarr/../q.zarr": "'..'",
    "disk:../raw": "'..'",
    "disk:///{folder}/../{file}": "'..'",
    "omero://user:secret@host/plate/1": "password",
    "zarr:///d/p.zarr/B/03/0?token=secret": "selects nothing",
    "s3://bucket/key": "only if it is named: storage.polystore",
    "ftp://host/a": "'ftp:' is not one of this plugin",
    "zarr+http://host/p.zarr": "'zarr+http:' is not one of this plugin",
    "omero://host/image/12": "names no plate",
    "memory://name/a": "memory belongs to one process",
    "zarr+memory://name/p.zarr": "memory belongs to one process",
    "raw/a.tif": "no scheme",
    "{query}": "no scheme",
    "disk:/raw/a.tif": "three slashes; write disk:///raw/a.tif",
    "disk://raw/a.tif": "two slashes",
    "disk:///raw//a.tif": "empty",
    "disk:raw/": "empty",
    "disk:": "empty",
    "zarr:///d/p.zarr/nothing": "names nothing in a plate",
    "zarr:///d/{plate}.zarr/nothing": "names nothing in a plate",
    "disk:///raw/@/a.tif": "kept for local copies",
    "disk:///raw/a@": "kept for local copies",
}


@pytest.mark.parametrize("query", GOOD)
def test_a_good_query_is_claimed_by_the_class_also_with_wildcards(query):
    assert StorageProvider.is_valid_query(query)


@pytest.mark.parametrize(("query", "reason"), BAD.items())
def test_a_bad_query_is_refused_in_one_line_that_says_why(query, reason):
    result = StorageProvider.is_valid_query(query)
    assert not result
    assert reason in str(result)
    assert "\n" not in str(result)
    assert "secret" not in str(result)


def test_example_queries_are_valid():
    for example_query in StorageProvider.example_queries():
        assert StorageProvider.is_valid_query(example_query.query), example_query


def test_queries_of_other_plugins_are_left_to_them():
    for query in ("s3://b/k", "gs://b/k", "https://host/file", "/absolute/path", "relative/path"):
        assert not StorageProvider.is_valid_query(query)


NAME = st.text("abB03.+-_ #%@?=", min_size=1, max_size=6) | st.sampled_from(
    ["a.csv", "p.zarr", "x.tif", "tables", "labels", "B", "03", "@", "a@", "@.zarr", "plate", "12"]
)
PATH = st.lists(NAME, min_size=1, max_size=5).map("/".join)
LOCAL = ["zarr:///", "zarr:", "disk:///", "disk:", "file:///"]
REMOTE = [
    "s3://b/",
    "s3://",
    "gs://b/",
    "zarr+s3://b/",
    "omero://h/plate/1/",
    "omero://h/plate/12/",
]
START = st.sampled_from([*LOCAL, *REMOTE])


def valid(query):
    return refusal(query, named=True) is None


@st.composite
def queries(draw):
    """Valid queries, half of them below another query."""
    return draw(START) + draw(PATH)


@given(START, PATH, PATH, NAME, st.sampled_from(["", "/0", ".tif", ".csv", "/@x", "/{two}"]))
@example("disk:///", "raw", "a/b.tif", "x", "/{two}")
@example("zarr:", "p.zarr", "B/03", "0", "/{two}")
@example("zarr:", "p.zarr/tables", "a.csv", "0", "")
def test_the_local_path_commutes_with_wildcard_substitution(start, folder, one, two, end):
    """Else Snakemake does not find which rule makes a file."""
    pattern = f"{start}{folder}/{{one}}{end}"
    values = {"one": one, "two": two}
    concrete = apply_wildcards(pattern, values)
    assume(valid(concrete))
    assert apply_wildcards(local_suffix(pattern), values) == local_suffix(concrete)
    match = re.match(regex_from_filepattern(local_suffix(pattern)), local_suffix(concrete))
    assert match is not None


def test_a_constrained_wildcard_keeps_its_constraint_in_the_local_path():
    pattern = local_suffix("disk:raw/{well,[A-H]/[0-9]+}.tif")
    regex = re.compile(regex_from_filepattern(pattern))
    assert regex.match(local_suffix("disk:raw/B/03.tif"))
    assert not regex.match(local_suffix("disk:raw/x.tif"))


@given(st.lists(queries().filter(valid), min_size=2, max_size=4, unique=True), PATH)
@example(["disk:///raw", "disk:raw"], "a")
@example(["zarr:///d/p.zarr", "disk:///d/p.zarr"], "B/03")
@example(["disk:a", "disk:a+"], "b")
@example(["zarr:a.zarr", "zarr:a.zarr/tables/@.csv"], "a.csv")
def test_local_paths_of_different_queries_are_never_equal_or_nested(found, below):
    """A link with another query's local copy in it would lead to removal of its source."""
    found += [text for query in found if valid(text := f"{query}/{below}") and text not in found]
    for one, other in permutations(found, 2):
        here, there = PurePosixPath(local_suffix(one)), PurePosixPath(local_suffix(other))
        assert here != there
        assert here not in there.parents


def test_local_copies_keep_names_that_programs_look_at():
    assert local_suffix("disk:///raw/a.ome.tif").endswith("/a.ome.tif")
    assert local_suffix("zarr:///d/p.zarr/tables/a.csv").endswith("/tables/a.csv")
    assert local_suffix("s3://bucket/tables/{name}.csv").endswith("/tables/{name}.csv")


ARRAYS = """
zarr:p.zarr  zarr:p.zarr/B/3  zarr:///d/{plate}.zarr/{well}  zarr:p.zarr/{x}  zarr:p.zarr/B/3/0?c=1
zarr:p.zarr/{well}/0/labels/{name}  zarr+s3://b/p.zarr/{row}/{column}  omero://host/plate/1/B/03/0
omero://host/plate/1/tables/a.csv
disk:raw/{well}  disk:raw/B/03/0  disk:///raw/{row}/{column}/{field}  s3://b/raw/{well}/{field}
"""
FILES = """
zarr:p.zarr/tables/{name}.csv  zarr:p.zarr/{well}/tables/a.csv  zarr+s3://b/p.zarr/{x}.JSON
disk:raw  disk:raw/{name}.tif  disk:results/{sample}/out  disk:///d/A/1/report.html  s3://b/{key}
"""


@pytest.mark.parametrize("query", ARRAYS.split())
def test_plates_and_images_are_by_reference_also_with_wildcards(tmp_path, query):
    assert by_reference(query)
    assert make_provider(tmp_path).object(query).retrieve is False
    assert make_provider(tmp_path).object(query, retrieve=True).retrieve is True
    assert make_provider(tmp_path, mode="link").object(query).retrieve is True


@pytest.mark.parametrize("query", FILES.split())
def test_files_and_tables_are_retrieved(tmp_path, query):
    assert not by_reference(query)
    assert make_provider(tmp_path).object(query).retrieve is True
