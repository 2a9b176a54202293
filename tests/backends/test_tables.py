"""Tables come back with the types they had, and damaged ones raise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polystore_flows.backends.codecs import decode, encode
from polystore_flows.errors import CorruptDataError, MismatchError

WHERE = "disk:///data/x"

_text = st.sampled_from(
    ["01", "1", "1e5", "NA", "nan", "True", "inf", "-1", ".5", " 1", "1 ", "+3", '"1"', "1.", "٣",
     "\r", "\n", "\r\n", "B/03", "1_0", "None", "a,b", "a\tb", "007.5"]
) | st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0\x1f"), min_size=1, max_size=5
)  # fmt: skip


@settings(max_examples=150)
@given(
    st.sampled_from(["a.csv", "a.tsv"]),
    st.lists(
        st.tuples(
            _text,
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_table_comes_back_with_its_types(name, rows):
    frame = pd.DataFrame(rows, columns=["text", "int", "float", "truth"])
    pd.testing.assert_frame_equal(decode(encode(frame, name), name), frame, check_exact=True)
    texts = frame[["text"]]
    pd.testing.assert_frame_equal(decode(encode(texts, name), name), texts)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_columns_of_a_plate_stay_text_and_counts_stay_numbers(name):
    frame = pd.DataFrame({"row": ["B", "C"], "column": ["3", "4"], "count": [3, 4]})
    back = decode(encode(frame, name), name)
    assert list(back["column"]) == ["3", "4"]
    assert back["count"].dtype == np.int64


def test_rows_and_columns_make_the_same_table():
    rows = encode([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], "a.csv")
    columns = encode({"a": [1, 2], "b": ["x", "y"]}, "a.csv")
    assert rows == columns == b"a,b\n1,x\n2,y\n"


def test_tables_of_others_keep_leading_zeros_and_know_missing_numbers():
    back = decode(b"\xef\xbb\xbfwell,column,mean\r\nB03,03,NA\r\nB10,10,1.5\r\n", "a.csv")
    assert list(back["column"]) == ["03", "10"]
    assert back["mean"].isna().tolist() == [True, False]


def test_a_missing_value_comes_back_missing():
    frame = pd.DataFrame({"a": [1.5, None], "b": ["01", None]})
    pd.testing.assert_frame_equal(decode(encode(frame, "a.csv"), "a.csv"), frame)


def test_an_empty_table_keeps_its_columns():
    assert list(decode(encode(pd.DataFrame({"a": [], "b": []}), "a.csv"), "a.csv")) == ["a", "b"]
    assert decode(encode(pd.DataFrame(), "a.csv"), "a.csv").empty


@pytest.mark.parametrize("data", [b"a,b\n1,2,3\n", b'a,b\n1,"2', b"a\n\xff", b"a\n\0\n"])
def test_a_corrupt_table_raises(data):
    with pytest.raises(CorruptDataError, match=r"^disk:///data/x: "):
        decode(data, "a.csv", where=WHERE)


def test_two_columns_of_one_name_are_refused():
    """They would come back as ``a`` and ``a.1``."""
    with pytest.raises(MismatchError):
        encode(pd.DataFrame([[1, 2]], columns=["a", "a"]), "a.csv")


@pytest.mark.parametrize("blank", [" ", "\t", "\r"])
def test_a_row_of_white_space_alone_is_kept(blank: str) -> None:
    """pandas takes such a line for none."""
    frame = pd.DataFrame({"note": [blank, "a"]})
    assert decode(encode(frame, "a.csv"), "a.csv").equals(frame)
