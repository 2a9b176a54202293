"""What is peculiar to object stores: keys, prefixes, ranges, lost answers, credentials, errors."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import time
import traceback
import warnings

import pytest
from obstore import exceptions as theirs
from obstore.store import MemoryStore

import polystore_flows as ps
from polystore_flows.backends.objects import errors as translation
from polystore_flows.backends.objects.backend import AzureBackend, GoogleBackend, ObjectsBackend
from polystore_flows.backends.objects.errors import object_errors
from polystore_flows.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConflictError,
    MissingDependencyError,
    NotFoundError,
    PolystoreError,
    StoreUnavailableError,
    UnsupportedError,
    URIError,
)
from polystore_flows.registry import get_backend
from polystore_flows.settings import ObjectStoreSettings, get_settings
from polystore_flows.testing.s3 import CANARY, ObjectsRig, settings_for


def dead_endpoint():
    """The URL of a port on which nobody listens."""
    return "http://127.0.0.1:1"


def told(error):
    """All that a user could see of an error, its causes included."""
    return "".join(traceback.format_exception(error)) + repr(error)


# Keys and prefixes


@pytest.mark.parametrize(
    "wrong", ["disk:///a", "gs://b/a", "/bucket/a", "s3://a b/c", "s3://u@b/c"]
)
def test_what_is_no_uri_of_this_store_is_refused(rig, wrong):
    with pytest.raises(URIError):
        rig.backend.exists(wrong)


def test_nothing_outside_a_prefix_is_deleted_and_never_a_bucket(rig):
    for name in ("a/1.txt", "a/b/2.txt", "ab/3.txt", "a.txt"):
        rig.backend.save("x", f"s3://{rig.bucket}/{name}")
    rig.backend.delete_all(f"s3://{rig.bucket}/a")
    assert rig.backend.list_files(f"s3://{rig.bucket}", recursive=True) == [
        f"s3://{rig.bucket}/a.txt",
        f"s3://{rig.bucket}/ab/3.txt",
    ]
    for verb in (rig.backend.delete_all, rig.backend.delete):
        with pytest.raises(UnsupportedError):
            verb(f"s3://{rig.bucket}")
    for target in (f"s3://{rig.bucket}", f"s3://{rig.bucket}/"):
        with pytest.raises((UnsupportedError, AlreadyExistsError)):
            rig.backend.copy(f"s3://{rig.bucket}/a.txt", target)
    assert rig.backend.exists(f"s3://{rig.bucket}/ab/3.txt")


def test_folders_that_other_tools_made_are_directories_and_no_files(rig):
    rig.server.put(f"{rig.bucket}/made/")
    rig.server.put(f"{rig.bucket}/made/below/")
    rig.server.put(f"{rig.bucket}/made/empty.txt")
    made = f"s3://{rig.bucket}/made"
    assert rig.backend.is_dir(made)
    assert rig.backend.is_dir(f"{made}/below")
    assert rig.backend.list_files(made, recursive=True) == [f"{made}/empty.txt"]
    assert rig.backend.list_dir(made) == ["below", "empty.txt"]
    with pytest.raises(UnsupportedError, match="another tool made"):
        rig.backend.delete_all(made)
    assert not rig.backend.exists(f"{made}/empty.txt")


def test_a_listing_goes_on_beyond_a_thousand_names(rig):
    for i in range(1005):
        rig.server.held(rig.bucket).put_object(rig.bucket, f"many/{i:04}.txt", b"x")
    rig.server.reset()
    assert len(rig.backend.list_files(f"s3://{rig.bucket}/many", recursive=True)) == 1005
    assert len(rig.backend.list_dir(f"s3://{rig.bucket}/many")) == 1005
    assert rig.server.requests["LIST"] <= 6
    rig.backend.delete_all(f"s3://{rig.bucket}/many")
    assert not rig.backend.exists(f"s3://{rig.bucket}/many")


def test_a_key_is_the_path_as_it_stands(rig):
    """Other tools must find it: nothing is quoted twice."""
    name = "plate #1 100% µ_æ_漢%20.txt"
    rig.backend.save("x", f"s3://{rig.bucket}/{name}")
    assert list(rig.server.held(rig.bucket).buckets[rig.bucket].keys) == [name]


def test_objects_of_two_buckets_are_copied(rig):
    other = rig.server.make_bucket()
    rig.backend.save("x", f"{rig.root}/a.txt")
    rig.backend.copy(f"{rig.root}/a.txt", f"s3://{other}/b.txt")
    with pytest.raises(AlreadyExistsError):
        rig.backend.move(f"{rig.root}/a.txt", f"s3://{other}/b.txt")
    assert rig.backend.load(f"s3://{other}/b.txt") == "x"


def test_the_server_copies_and_sends_no_bytes(rig):
    rig.backend.save(b"x" * 100_000, f"{rig.root}/a.bin")
    rig.server.reset()
    rig.backend.move(f"{rig.root}/a.bin", f"{rig.root}/b.bin")
    assert rig.server.sent == 0


# Reading


def test_an_open_object_can_be_sought_and_is_fetched_by_ranges(rig):
    data = os.urandom(3_000_000)
    rig.backend.write_bytes(data, f"{rig.root}/a.bin")
    rig.server.reset()
    with rig.backend.open_binary(f"{rig.root}/a.bin") as file:
        assert file.seekable()
        assert not file.writable()
        assert file.read(10) == data[:10]
        assert file.seek(-5, io.SEEK_END) == len(data) - 5
        assert file.read() == data[-5:]
        assert file.read() == b""
        file.seek(100_000)
        assert file.read(50_000) == data[100_000:150_000]
        assert rig.server.requests == {"GET": 3}
        assert rig.server.sent < 1_500_000
        file.seek(0)
        assert file.read() == data


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 2_000_000])
def test_objects_of_every_size_are_read_whole(rig, size):
    data = os.urandom(size)
    rig.backend.write_bytes(data, f"{rig.root}/a.bin")
    assert rig.backend.read_bytes(f"{rig.root}/a.bin") == data


def test_an_object_that_is_replaced_while_it_is_read_is_told(rig):
    rig.backend.write_bytes(b"a" * 200_000, f"{rig.root}/a.bin")
    with rig.backend.open_binary(f"{rig.root}/a.bin") as file:
        file.read(10)
        rig.backend.write_bytes(b"b" * 200_000, f"{rig.root}/a.bin", overwrite=True)
        with pytest.raises(ConflictError, match="replaced while it was read"):
            file.read()


# Writing


def test_large_objects_go_in_parts(rig):
    rig.server.reset()
    data = os.urandom(12_000_000)
    rig.backend.write_bytes(data, f"{rig.root}/a.bin", overwrite=True)
    assert rig.server.requests["PUT"] == 3
    assert rig.backend.read_bytes(f"{rig.root}/a.bin") == data


def test_a_save_whose_answer_is_lost_is_a_save(rig):
    """Its second try would meet its own object and say that it exists already."""
    rig.server.lose_every = 2
    for number in range(4):
        rig.backend.save("x", f"{rig.root}/{number}.txt")
    with pytest.raises(AlreadyExistsError):
        rig.backend.save("y", f"{rig.root}/3.txt")
    assert rig.backend.load(f"{rig.root}/3.txt") == "x"


def test_a_conditional_write_is_refused_when_somebody_was_faster(rig):
    uri = f"{rig.root}/a.json"
    assert rig.backend.read_with_etag(uri) is None
    first = rig.backend.write_if(b"1", uri, None, {"mykey": "told"})
    content, etag, attributes = rig.backend.read_with_etag(uri)
    assert (content, etag, attributes["mykey"]) == (b"1", first, "told")
    with pytest.raises(ConflictError, match=r"a\.json"):
        rig.backend.write_if(b"2", uri, None)
    second = rig.backend.write_if(b"2", uri, etag)
    with pytest.raises(ConflictError, match=r"a\.json"):
        rig.backend.write_if(b"3", uri, etag)
    rig.backend.delete(uri)
    with pytest.raises(ConflictError, match=r"a\.json"):
        rig.backend.write_if(b"3", uri, second)
    assert not rig.backend.exists(uri)


# Errors


def test_every_error_of_obstore_is_translated():
    classes = [v for v in vars(theirs).values() if isinstance(v, type)]
    assert len(classes) >= 11
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cls in [*classes, FileNotFoundError, ValueError]:
            with (
                pytest.raises(PolystoreError, match="s3://b/k") as caught,
                object_errors("s3://b/k"),
            ):
                raise cls("Generic S3 error: line one\n\nDebug source:\nline two")
            assert "\n" not in str(caught.value)
            assert type(caught.value.__cause__) is cls
            assert cls in translation._KINDS or cls.__name__ == "NotFoundError"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, AccessDeniedError),
        (403, AccessDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (412, ConflictError),
        (500, StoreUnavailableError),
        (503, StoreUnavailableError),
    ],
)
def test_the_status_of_an_answer_tells_errors_apart(status, expected):
    with pytest.raises(expected), object_errors("s3://b/k"):
        raise theirs.GenericError(f"Server returned non-2xx status code: {status} X: <?xml ?>")


def test_a_malformed_key_is_told():
    store = MemoryStore()
    with pytest.raises(URIError, match="s3://b/k"), object_errors("s3://b/k"):
        store.put("a//b", b"")


def test_a_wrong_bucket_is_named(rig):
    wrong = "s3://there-is-none/a.txt"
    assert not rig.backend.exists(wrong)
    for call in (
        lambda: rig.backend.load(wrong),
        lambda: rig.backend.save("x", wrong),
        lambda: rig.backend.read_with_etag(wrong),
        lambda: rig.backend.list_dir("s3://there-is-none"),
        lambda: rig.backend.list_files("s3://there-is-none/a"),
    ):
        with pytest.raises(NotFoundError, match=r"s3://there-is-none.*no such bucket") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_no_permission_is_one_line_at_once(rig):
    path = f"{rig.root}/a.txt"
    rig.backend.save("x", path)
    rig.server.refuse = True
    before = time.monotonic()
    for call in (
        lambda: rig.backend.load(path),
        lambda: rig.backend.save("y", path, overwrite=True),
        lambda: rig.backend.save("y", f"{rig.root}/b.txt"),
        lambda: rig.backend.list_dir(rig.root),
        lambda: rig.backend.exists(path),
        lambda: rig.backend.delete_all(path),
    ):
        with pytest.raises(AccessDeniedError, match=f"s3://{rig.bucket}.*credentials") as caught:
            call()
        assert "\n" not in str(caught.value)
        assert CANARY not in told(caught.value)
    assert time.monotonic() - before < 5


def test_an_endpoint_that_is_gone_is_one_line_in_bounded_time(rig, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", dead_endpoint())
    monkeypatch.setenv("POLYSTORE_OBJECTS_RETRIES", "2")
    get_settings.cache_clear()
    backend, before = ObjectsBackend(), time.monotonic()
    for call in (
        lambda: backend.load(f"{rig.root}/a.txt"),
        lambda: backend.save("x", f"{rig.root}/a.txt"),
        lambda: backend.list_dir(rig.root),
    ):
        with pytest.raises(StoreUnavailableError, match=f"s3://{rig.bucket}.*endpoint") as caught:
            call()
        assert "\n" not in str(caught.value)
        assert CANARY not in told(caught.value)
    assert time.monotonic() - before < 15


def test_without_obstore_the_pip_line_is_told():
    code = (
        "import sys; sys.modules['obstore'] = None\n"
        "from polystore_flows.registry import get_backend\n"
        "try: get_backend('s3')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(MissingDependencyError.__name__)
    assert "pip install 'polystore-flows[objects]'" in done.stdout


def test_a_forked_child_is_told_and_does_not_hang(rig):
    rig.backend.save("x", f"{rig.root}/a.txt")
    code = f"""
import os, sys
from polystore_flows.backends.objects.backend import ObjectsBackend
backend = ObjectsBackend()
assert backend.load("{rig.root}/a.txt") == "x"
pid = os.fork()
if not pid:
    try: backend.load("{rig.root}/a.txt")
    except Exception as error: print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith(UnsupportedError.__name__), done.stdout
    assert "spawn" in done.stdout


# Credentials and settings


def test_no_secret_is_in_a_repr_a_pickle_or_an_identity(rig):
    rig.backend.save("x", f"{rig.root}/a.txt")
    seen = repr(rig.backend) + repr(vars(rig.backend)) + rig.backend.identity(rig.root)
    assert CANARY not in seen
    pickled = pickle.dumps(rig.backend)
    assert CANARY.encode() not in pickled
    assert pickle.loads(pickled).load(f"{rig.root}/a.txt") == "x"


def test_an_entry_of_the_settings_names_endpoint_and_profile(rig, tmp_path, monkeypatch):
    for name in (
        "AWS_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ALLOW_HTTP",
    ):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    file.write_text(f"[lab]\naws_access_key_id = me\naws_secret_access_key = {CANARY}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    entry = ObjectStoreSettings(**{**settings_for(rig.server).model_dump(), "profile": "lab"})
    monkeypatch.setenv(
        "POLYSTORE_OBJECTS", f'{{"s3://{rig.bucket}": {entry.model_dump_json()}, "s3": {{}}}}'
    )
    get_settings.cache_clear()
    backend = ObjectsBackend()
    backend.save("x", f"{rig.root}/a.txt")
    assert backend.load(f"{rig.root}/a.txt") == "x"
    assert CANARY not in repr(get_settings())
    file.write_text("[other]\n")
    with pytest.raises(AccessDeniedError, match="profile 'lab' holds no keys"):
        ObjectsBackend().load(f"{rig.root}/a.txt")
    file.write_text(f"aws_secret_access_key = {CANARY}\n")
    with pytest.raises(AccessDeniedError, match="cannot be read") as caught:
        ObjectsBackend().load(f"{rig.root}/a.txt")
    assert CANARY not in told(caught.value)


def test_a_secret_in_the_settings_is_refused_and_not_repeated(monkeypatch):
    monkeypatch.setenv("POLYSTORE_OBJECTS", f'{{"s3": {{"secret_access_key": "{CANARY}"}}}}')
    get_settings.cache_clear()
    try:
        with pytest.raises(ValueError, match="secret_access_key") as caught:
            get_settings()
        assert CANARY not in told(caught.value)
    finally:
        monkeypatch.delenv("POLYSTORE_OBJECTS")
        get_settings.cache_clear()


def test_the_default_profile_serves_where_the_environment_has_no_keys(rig, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "c").write_text(
        f"[default]\naws_access_key_id=me\naws_secret_access_key={CANARY}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "c"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    ObjectsBackend().save("x", f"{rig.root}/a.txt")


@pytest.mark.parametrize(
    ("backend", "uri"), [(GoogleBackend, "gs://bucket/a.txt"), (AzureBackend, "az://box/a.txt")]
)
def test_the_other_clouds_are_reached_the_same_way(backend, uri, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("POLYSTORE_OBJECTS_RETRIES", "0")
    get_settings.cache_clear()
    entry = ObjectStoreSettings(endpoint=dead_endpoint(), allow_http=True, anonymous=True)
    made = backend(store=entry)
    with pytest.raises(StoreUnavailableError, match=uri):
        made.load(uri)
    with pytest.raises(URIError):
        made.load("s3://bucket/a.txt")
    with pytest.raises(UnsupportedError, match="s3 only"):
        backend(store=ObjectStoreSettings(region="x")).load(uri)
    assert isinstance(get_backend(uri[:2]), backend)
    get_settings.cache_clear()


def test_the_verbs_and_the_command_line_reach_objects(rig, capsys):
    ps.save({"a": 1}, f"{rig.root}/a.json")
    assert ps.load(f"{rig.root}/a.json") == {"a": 1}
    assert ps.list_files(rig.root) == [f"{rig.root}/a.json"]
    ps.copy(f"{rig.root}/a.json", f"{rig.root}/b.json")
    ps.delete(f"{rig.root}/a.json")
    assert not ps.exists(f"{rig.root}/a.json")


def test_a_rig_leaves_the_environment_as_it_was(server):
    before = dict(os.environ)
    with ObjectsRig(server):
        assert os.environ["AWS_ENDPOINT_URL"] == server.endpoint
    assert dict(os.environ) == before
