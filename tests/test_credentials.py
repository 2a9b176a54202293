"""Credentials that are given for a time: who sees them, and who does not."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from polystore_flows.credentials import Credentials, find, given, keep
from polystore_flows.errors import ConflictError

LAB = Credentials(user="lab", secret="canary")


def test_threads_see_what_was_given_and_nobody_sees_it_later() -> None:
    """Backends work in pools of threads, which copy no context."""
    with given({"s3://a": LAB}), ThreadPoolExecutor(1) as pool:
        assert pool.submit(find, "s3://a").result() is LAB
        assert find("s3://b") is None
    assert find("s3://a") is None


def test_uses_of_one_store_may_overlap() -> None:
    with given({"s3://a": LAB}):
        with given({"s3://a": Credentials(user="lab", secret="canary")}):
            pass
        assert find("s3://a") == LAB


def test_other_credentials_for_a_store_in_use_are_refused() -> None:
    """One of the two would write under the other's name."""
    other = Credentials(user="other")
    with given({"s3://a": LAB}):
        with pytest.raises(ConflictError, match="s3://a is in use with other credentials"):
            given({"s3://b": LAB, "s3://a": other}).__enter__()
        assert find("s3://b") is None
    with given({"s3://a": other}):
        assert find("s3://a") == other


def test_kept_credentials_serve_where_no_block_has_given_others() -> None:
    """An opened plate is read after the call that opened it has returned."""
    keep("s3://kept", LAB)
    with given({"s3://kept": Credentials(user="other")}):
        assert find("s3://kept") == Credentials(user="other")
    assert find("s3://kept") == LAB


def test_credentials_are_neither_printed_nor_pickled() -> None:
    assert "canary" not in repr(LAB)
    assert "canary" not in f"{[LAB]}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(LAB)
