"""The pure parts of the etcd adapter: messages, ranges, assembling, errors, URLs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model.settings import StoreSettings
from discod.store import etcd_proto
from discod.store.base import (
    Compacted,
    Delta,
    KeyValue,
    LeaseNotFound,
    Removed,
    StoreError,
    StoreRejected,
    StoreUnavailable,
)
from discod.store.etcd_auth import target, tls_files
from discod.store.etcd_errors import RpcFailure
from discod.store.etcd_events import Assembler, prefix_range, span
from discod.store.ops import normal_prefixes, whole_seconds

PUT, DELETE = 0, 1
PREFIXES = ("/discod/", "/skydns/")


def events(*items: tuple[int, str, int]) -> Any:
    """Events as etcd sends them: (type, key, revision)."""
    response = etcd_proto.load().message("WatchResponse")()
    for kind, key, revision in items:
        response.events.add(type=kind, kv={"key": key.encode(), "mod_revision": revision})
    return response.events


# Messages -------------------------------------------------------------------------------------


def test_the_messages_are_etcds() -> None:
    proto = etcd_proto.load()
    request = proto.message("RangeRequest")(key=b"/a", range_end=b"/b", limit=3)
    method = proto.method("KV/Range")
    assert method.path == "/etcdserverpb.KV/Range"
    assert method.serialize(request) == b"\x0a\x02/a\x12\x02/b\x18\x03"
    assert method.parse(b"\x20\x07").count == 7
    assert proto.progress_request().SerializeToString() == b"\x1a\x00"


def test_the_pool_is_private() -> None:
    """Loading must not register names that the real generated modules would register too."""
    etcd_proto.load()
    from google.protobuf import descriptor_pool

    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName("rpc.proto")


def test_the_memory_store_imports_no_grpc() -> None:
    code = (
        "import sys, trio\n"
        "from discod.store.opening import open_store\n"
        "from discod.model.settings import StoreSettings\n"
        "async def main():\n"
        "    async with open_store(StoreSettings()) as store:\n"
        "        assert store.kind == 'memory'\n"
        "trio.run(main)\n"
        "assert not {'grpc', 'google.protobuf', 'etcd3'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "key", "end"),
    [("/a/", b"/a/", b"/a0"), ("", b"\0", b"\0"), ("é", b"\xc3\xa9", b"\xc3\xaa")],
)
def test_prefix_range(prefix: str, key: bytes, end: bytes) -> None:
    assert prefix_range(prefix) == (key, end)


@given(st.text(min_size=1, max_size=5), st.text(max_size=5))
def test_a_prefix_range_selects_exactly_its_keys(prefix: str, other: str) -> None:
    key, end = prefix_range(prefix)
    for name in (other, prefix, prefix + other):
        assert (key <= name.encode() < end) == name.startswith(prefix)


@given(st.lists(st.text("ab/", max_size=4), min_size=1, max_size=5), st.text("ab/", max_size=6))
def test_normal_prefixes_select_the_same(prefixes: list[str], key: str) -> None:
    normal = normal_prefixes(prefixes)
    assert key.startswith(normal) == key.startswith(tuple(prefixes))
    assert sum(key.startswith(prefix) for prefix in normal) <= 1
    low, high = span(normal)
    if key.startswith(normal) and key and normal != ("",):
        assert low <= key.encode() < high


@pytest.mark.parametrize(("ttl", "seconds"), [(0.1, 1), (1, 1), (1.01, 2), (10.0, 10)])
def test_whole_seconds(ttl: float, seconds: int) -> None:
    assert whole_seconds(ttl) == seconds


# Assembling -----------------------------------------------------------------------------------


def test_a_span_delivers_at_once_and_filters() -> None:
    assembler = Assembler(PREFIXES, 5, split=False)
    assert assembler.take(
        events((DELETE, "/skydns/a", 6), (PUT, "/kubernetes", 6), (PUT, "/discod/a", 6))
    ) == Delta(6, (Removed("/skydns/a", 6), KeyValue("/discod/a", b"", 6)))
    assert assembler.take(events((PUT, "/kubernetes", 7))) is None
    assert assembler.revision == 7
    assembler.notified(9)
    assert assembler.revision == 9
    assert not assembler.wants_fence


def test_split_watches_wait_for_the_fence() -> None:
    assembler = Assembler(PREFIXES, 5, split=True)
    assert assembler.take(events((DELETE, "/skydns/a", 6))) is None
    assert assembler.wants_fence
    assembler.asked()
    assert not assembler.wants_fence
    assert assembler.take(events((PUT, "/discod/a", 6))) is None
    assert assembler.take(events((PUT, "/skydns/b", 7))) is None  # after the fence was sent
    assert assembler.answered() == Delta(
        6, (KeyValue("/discod/a", b"", 6), Removed("/skydns/a", 6))
    )
    assert assembler.wants_fence
    assembler.asked()
    assert assembler.answered() == Delta(7, (KeyValue("/skydns/b", b"", 7),))
    assert not assembler.waiting
    assert assembler.answered() is None


def test_the_answer_to_an_earlier_request_is_no_fence() -> None:
    assembler = Assembler(PREFIXES, 5, split=True)
    assembler.asked()
    assembler.take(events((PUT, "/skydns/a", 6)))
    assembler.asked()
    assert assembler.answered() is None
    assert assembler.answered() == Delta(6, (KeyValue("/skydns/a", b"", 6),))


def test_a_fence_that_was_dropped_is_sent_again() -> None:
    assembler = Assembler(PREFIXES, 5, split=True)
    assembler.asked()  # dropped as well
    assembler.take(events((PUT, "/skydns/a", 6)))
    assembler.asked()
    assembler.take(events((PUT, "/skydns/b", 7)))
    assembler.asked(again=True)
    answer = assembler.answered()
    assert answer is not None
    assert answer.revision == 6
    assert assembler.wants_fence


def test_a_part_that_comes_late_is_never_lost() -> None:
    assembler = Assembler(PREFIXES, 5, split=True)
    assembler.take(events((DELETE, "/skydns/a", 6)))
    assembler.asked()
    assembler.answered()
    with pytest.raises(Compacted):
        assembler.take(events((PUT, "/discod/a", 6)))


def test_a_notification_of_one_of_several_watches_says_nothing() -> None:
    assembler = Assembler(PREFIXES, 5, split=True)
    assembler.notified(9)
    assert assembler.revision == 5


def test_a_foreign_key_that_is_no_text() -> None:
    assembler = Assembler(("/skydns/",), 5, split=False)
    raw = events((PUT, "/skydns/x", 6))
    raw[0].kv.key = b"/skydns/\xff"
    delta = assembler.take(raw)
    assert delta is not None
    assert delta.events[0].key == "/skydns/\\xff"


# Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses", StoreUnavailable),
        ("UNAVAILABLE", "etcdserver: no leader", StoreUnavailable),
        ("UNAVAILABLE", "etcdserver: request timed out", StoreUnavailable),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", StoreUnavailable),
        ("CANCELLED", "Channel closed!", StoreUnavailable),
        ("UNKNOWN", "raft: stopped", StoreUnavailable),
        ("INTERNAL", "RST_STREAM", StoreUnavailable),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", StoreUnavailable),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", StoreRejected),
        ("NOT_FOUND", "etcdserver: requested lease not found", LeaseNotFound),
        ("NOT_FOUND", "etcdserver: member not found", StoreRejected),
        (
            "OUT_OF_RANGE",
            "etcdserver: mvcc: required revision has been compacted",
            Compacted,
        ),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", StoreRejected),
        ("INVALID_ARGUMENT", "etcdserver: too many operations in txn request", StoreRejected),
        ("PERMISSION_DENIED", "etcdserver: permission denied", StoreRejected),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", StoreRejected),
        ("UNIMPLEMENTED", "unknown service", StoreRejected),
    ],
)
def test_what_errors_mean(code: str, details: str, kind: type[StoreError]) -> None:
    error = RpcFailure(code, details).as_store_error("http://192.0.2.1:2379")
    assert type(error) is kind
    assert str(error) == f"http://192.0.2.1:2379: {details} ({code})"


@pytest.mark.parametrize(
    ("code", "details", "not_sent"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses; last error: refused", True),
        ("UNAVAILABLE", "etcdserver: no leader", True),
        ("UNAVAILABLE", "Socket closed", False),
        ("UNAVAILABLE", "etcdserver: request timed out", False),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", False),
        ("UNKNOWN", "failed to connect", False),
    ],
)
def test_when_a_commit_was_surely_not_executed(code: str, details: str, not_sent: bool) -> None:
    assert RpcFailure(code, details).not_sent is not_sent


@pytest.mark.parametrize(
    ("code", "details", "again"),
    [
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", True),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", True),
        ("INVALID_ARGUMENT", "etcdserver: revision of auth store is old", True),
        ("PERMISSION_DENIED", "etcdserver: permission denied", False),
        ("UNAVAILABLE", "Socket closed", False),
    ],
)
def test_when_to_log_in_again(code: str, details: str, again: bool) -> None:
    assert RpcFailure(code, details).log_in_again is again


# Settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://etcd1:2379", ("etcd1:2379", False)),
        ("https://192.0.2.1", ("192.0.2.1:2379", True)),
        ("https://[2001:db8::1]:4001", ("[2001:db8::1]:4001", True)),
    ],
)
def test_endpoints(url: str, expected: tuple[str, bool]) -> None:
    assert target(url) == expected


@pytest.mark.parametrize("url", ["etcd1:2379", "ftp://etcd1", "http://", "http://h:99999", ""])
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(StoreRejected, match="endpoint"):
        target(url)


def test_a_tls_file_that_is_missing_is_named() -> None:
    with pytest.raises(StoreRejected, match=r"store\.key: .*/nowhere/key\.pem"):
        tls_files(StoreSettings(key="/nowhere/key.pem"))
