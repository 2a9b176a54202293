"""Provenance of wells, told once for each run."""

import polystore_flows as ps
from polystore_flows.report.origin import facts_of, runs_of


def told(**more):
    facts = {"parameters": {"sigma": 2}, "created": "2026-01-01"} | more
    return ps.Provenance("segment", "1.2", **facts)


def test_wells_of_one_run_are_told_together_with_what_is_their_own():
    one = told(inputs=(ps.Input("disk:raw/A/1", bytes=5),))
    two = told(created="2026-01-02")
    other = told(parameters={"sigma": 3})
    runs = runs_of([("A/1", one), ("A/2", two), ("A/3", None), ("B/1", other)])
    assert [(run.title, list(run.wells)) for run in runs] == [
        ("segment 1.2", ["A/1", "A/2"]),
        ("segment 1.2", ["B/1"]),
    ]
    assert runs[0].facts == [("tool", "segment"), ("version", "1.2"), ("parameters.sigma", "2")]
    assert runs[0].wells["A/1"] == [
        ("inputs 1: uri", "disk:raw/A/1"),
        ("inputs 1: bytes", "5"),
        ("created", "2026-01-01"),
    ]


def test_any_json_becomes_names_and_texts():
    assert facts_of({"a": {"b": [1, 2], "c": None}, "d": "x", "e": True}) == [
        ("a.b", "[1, 2]"),
        ("a.c", "null"),
        ("d", "x"),
        ("e", "true"),
    ]
