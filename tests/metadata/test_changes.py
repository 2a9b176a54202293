"""What each step of a change does, and that a change is made whole or not at all."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from crowds import wait_until, waiters
from hypothesis import example, given
from hypothesis import strategies as st

from polystore_flows.errors import CorruptMetadataError, MismatchError
from polystore_flows.metadata import atomic_update_json, atomic_write_json, read_json
from polystore_flows.metadata.changes import Change, apply
from polystore_flows.metadata.document import apply_change
from polystore_flows.metadata.layout import Draft

HERE = Path("a.json")


def _after(change: Change, data: dict[str, Any]) -> dict[str, Any]:
    return apply(change.encode(HERE), Draft(data), HERE).data


def test_steps_do_what_their_names_say() -> None:
    change = (
        Change()
        .set("a", "b", value=1)
        .merge("c", value={"y": 2})
        .append("d", value=3)
        .raise_to("e", value=4)
        .raise_to("f", value=4)
        .default("g", value=5)
        .default("h", "i", value=5)
        .agree("j", value=[6])
        .agree("k", value=[6])
        .drop("l", "m")
        .drop("n", "o")
    )
    data = {"c": {"x": 1}, "d": [2], "e": 9, "g": None, "j": [6], "l": {"m": 1, "p": 1}}
    assert _after(change, data) == {
        "a": {"b": 1},
        "c": {"x": 1, "y": 2},
        "d": [2, 3],
        "e": 9,
        "f": 4,
        "g": None,
        "h": {"i": 5},
        "j": [6],
        "k": [6],
        "l": {"p": 1},
    }


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=20))
def test_insert_keeps_a_list_sorted_and_holds_each_key_once(keys: list[tuple[int, int]]) -> None:
    data: dict[str, Any] = {}
    for number, (row, column) in enumerate(keys):
        item = {"row": row, "column": column, "n": number}
        data = _after(Change().insert("wells", value=item, by=("row", "column")), data)
    latest = {key: number for number, key in enumerate(keys)}
    assert [(w["row"], w["column"], w["n"]) for w in data.get("wells", [])] == [
        (*key, latest[key]) for key in sorted(latest)
    ]


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (Change().append("a", value=1), CorruptMetadataError, "'a' is no JSON array but int"),
        (Change().merge("b", value={}), CorruptMetadataError, "'b' is no JSON object but list"),
        (Change().raise_to("b", value=1), CorruptMetadataError, "'b' is no JSON number but list"),
        (
            Change().insert("b", value={"n": 1}, by=["n"]),
            CorruptMetadataError,
            "'b' does not hold objects with n",
        ),
        (Change().agree("c", "d", value=1), MismatchError, "c/d is 2, not 1; nothing was written"),
    ],
)
def test_a_change_that_does_not_fit_changes_nothing_at_all(
    step: Change, error: type[Exception], message: str
) -> None:
    data = {"a": 1, "b": [{"m": 1}], "c": {"d": 2}}
    whole = Change().set("new", value=1).drop("a")
    whole._steps += step._steps
    draft = Draft(json.loads(json.dumps(data)))
    with pytest.raises(error, match=message):
        apply(whole.encode(HERE), draft, HERE)
    assert draft.data == data


def test_of_changes_that_wait_together_the_one_that_disagrees_fails_alone(tmp_path: Path) -> None:
    document = tmp_path / "a.json"
    atomic_write_json(document, {"kind": "uint16"})
    failed: list[str] = []

    def work(name: str, kind: str) -> None:
        change = Change().agree("kind", value=kind).append("log", value=name)
        try:
            apply_change(document, change, 30)
        except MismatchError as error:
            failed.append(f"{name}: {error}")

    kinds = ["uint16", "uint8", "uint16"]
    threads = [threading.Thread(target=work, args=(str(n), k)) for n, k in enumerate(kinds)]

    def gather(data: dict[str, Any]) -> dict[str, Any]:
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(name.endswith(".json") for name in waiters(document)) == 3)
        return data

    atomic_update_json(document, gather)
    for thread in threads:
        thread.join()
    assert sorted(read_json(document)["log"]) == ["0", "2"]
    assert len(failed) == 1
    assert failed[0].startswith(f"1: {document}: kind is 'uint16', not 'uint8'")


def test_a_long_list_of_objects_stands_one_to_a_line_whatever_its_texts_hold() -> None:
    """They are encoded in one call, and cut apart where one object ends and the next begins."""
    plain = [{"path": f"A/{n}", "rowIndex": 0} for n in range(60)]
    lines = Draft({"attributes": {"plate": {"wells": plain}}}).render().decode().split("\n")
    assert sum('{"path"' in line for line in lines) == 60
    for odd in ({"path": "}, {"}, {"path": {"a": 1}}, {"path": [{}, {}]}, {"path": "x" * 200}, {}):
        for at in (0, 30, 60):
            data = {"wells": [*plain[:at], odd, *plain[at:]]}
            assert json.loads(Draft(data).render()) == data


_NAMES = st.sampled_from(["a", "b", "wells", 'say "x": {', "back\\slash", "é", "\ud800", ""])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", ",", '",\n    "', '}, {"', "\ud800", "x" * 90, "\n  }"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
_DOCUMENTS = st.dictionaries(_NAMES, st.dictionaries(_NAMES, _VALUES, max_size=5) | _VALUES)
_PATHS = st.lists(_NAMES, min_size=1, max_size=3)
_STEPS = st.one_of(
    st.builds(lambda path, value: Change().set(*path, value=value), _PATHS, _VALUES),
    st.builds(lambda path, value: Change().default(*path, value=value), _PATHS, _VALUES),
    st.builds(lambda path, value: Change().agree(*path, value=value), _PATHS, _VALUES),
    st.builds(lambda path, value: Change().append(*path, value=value), _PATHS, _VALUES),
    st.builds(lambda path: Change().drop(*path), _PATHS),
    st.builds(
        lambda path, value: Change().merge(*path, value=value),
        _PATHS,
        st.dictionaries(_NAMES, _VALUES, max_size=3),
    ),
)


@given(_DOCUMENTS, st.lists(_STEPS, max_size=4))
@example({"a": {"b": "\ud800"}}, [Change().set("é", value=None)])
@example({}, [Change().merge("a", "b", value={}), Change().merge("a", "b", "c", value={})])
def test_a_text_of_ours_is_changed_without_being_parsed(
    data: dict[str, Any], changes: list[Change]
) -> None:
    """Entry by entry, and gives the text that the whole document would give."""
    whole = Draft(data)
    lazy = Draft.of(whole.render()) or Draft(json.loads(whole.content))
    assert lazy.data.keys() == data.keys()
    for change in changes:
        refused: list[str] = []
        for draft in (whole, lazy):
            try:
                apply(change.encode(HERE), draft, HERE)
            except (CorruptMetadataError, MismatchError) as error:
                refused.append(str(error))
        assert len(set(refused)) == len(refused) // 2
        assert lazy.render() == whole.render()
        assert json.loads(lazy.content) == whole.data
