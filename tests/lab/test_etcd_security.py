"""TLS, client certificates, users and permissions, on real etcd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from discod.model.settings import StoreSettings
from discod.store.base import Delete, KeyValue, Put, StoreRejected, StoreUnavailable, Unchanged
from discod.store.opening import open_store
from tests.lab.etcd import EtcdCluster, Tls, make_certificate, make_tls
from tests.lab.test_etcd_failures import PREFIXES, Recorder, following, until

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return make_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["plain", "tls"])
def cluster(request: pytest.FixtureRequest, tls: Tls) -> Iterator[EtcdCluster]:
    """One member that knows users, with and without TLS; tokens live 2 s."""
    files = replace(tls, require_client_cert=False) if request.param == "tls" else None
    with EtcdCluster(tls=files, options=["--auth-token-ttl=2"]) as cluster:
        yield cluster


def settings_for(cluster: EtcdCluster, tmp_path: Path, password: str) -> StoreSettings:
    file = tmp_path / "password"
    file.write_text(password + "\n")
    tls = cluster.members[0].tls
    return StoreSettings(
        endpoints=cluster.endpoints,
        ca=str(tls.ca) if tls else "",
        username="discod",
        password_file=str(file),
    )


def enable_auth(cluster: EtcdCluster, *permissions: tuple[str, ...]) -> None:
    """User discod (password secret) with these permissions, root (password root)."""
    run = cluster.members[0].etcdctl
    run("user", "add", "root:root")
    run("user", "grant-role", "root", "root", check=False)
    run("user", "add", "discod:secret")
    run("role", "add", "discod")
    for permission in permissions:
        run("role", "grant-permission", "discod", *permission)
    run("user", "grant-role", "discod", "discod")
    run("auth", "enable")


ITS_OWN = (
    ("--prefix=true", "readwrite", "/skydns/"),
    ("--prefix=true", "readwrite", "/discod/"),
)
WITH_SPAN = (*ITS_OWN, ("read", "/discod/", "/skydns0"))


async def test_tls_with_client_certificates(tls: Tls, tmp_path: Path) -> None:
    with EtcdCluster(tls=tls) as cluster:
        good = StoreSettings(
            endpoints=cluster.endpoints,
            ca=str(tls.ca),
            cert=str(tls.client_cert),
            key=str(tls.client_key),
        )
        async with open_store(good) as store:
            start = await store.snapshot(PREFIXES)
            async with store.watch(PREFIXES, start.revision) as watch:
                commit = await store.commit([Put(f"{PREFIXES[0]}k", b"v")])
                with trio.fail_after(5):
                    while not (delta := await anext(watch)).events:
                        pass
            assert delta.events == (KeyValue(f"{PREFIXES[0]}k", b"v", commit.revision),)
        for bad in (
            replace(good, cert="", key=""),
            replace(good, ca=str(make_tls(tmp_path / "other").ca)),
            replace(good, endpoints=(cluster.endpoints[0].replace("https", "http"),)),
        ):
            async with open_store(bad) as store:
                with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"), trio.fail_after(3.5):
                    await store.snapshot(PREFIXES)


@pytest.mark.parametrize("permissions", [WITH_SPAN, ITS_OWN], ids=["span", "own prefixes only"])
async def test_a_user_follows_and_writes(
    cluster: EtcdCluster, tmp_path: Path, permissions: tuple[tuple[str, ...], ...]
) -> None:
    """With permission for the span between the prefixes and without: each Delta is whole."""
    await trio.to_thread.run_sync(enable_auth, cluster, *permissions)
    own, dns = PREFIXES
    rounds = 50
    recorder = Recorder()
    async with (
        open_store(settings_for(cluster, tmp_path, "secret")) as store,
        trio.open_nursery() as nursery,
    ):
        start = await store.commit([Put(f"{dns}{i}", b"") for i in range(rounds)])
        await following(nursery, store, recorder)
        for i in range(rounds):
            await store.commit([Delete(f"{dns}{i}"), Put(f"{own}{i}", b"why")])
        await until(lambda: len(recorder.revisions) == 2 * rounds)
        assert recorder.snapshots[0].revision == start.revision
        assert all(len(delta.events) % 2 == 0 for delta in recorder.deltas)
        assert len(set(recorder.revisions)) == rounds
        assert recorder.revisions == sorted(recorder.revisions)
        assert sorted(recorder.state()) == sorted(f"{own}{i}" for i in range(rounds))
        assert not recorder.errors

        await trio.sleep(5)  # tokens of 2 s are gone by now: a call logs in again, unnoticed
        commit = await store.commit([Put(f"{own}late", b"")], [Unchanged(f"{own}late", 0)])
        await until(lambda: recorder.revisions[-1] == commit.revision)
        assert len(recorder.snapshots) == 1
        assert not recorder.errors
        with pytest.raises(StoreRejected, match="permission denied"):
            await store.commit([Put("/zzz", b"")])
        with pytest.raises(StoreRejected, match="permission denied"):
            await store.snapshot(["/zzz"])
        async with store.watch(["/zzz"], commit.revision) as watch:
            with pytest.raises(StoreRejected, match="permission denied"), trio.fail_after(5):
                await anext(watch)
        nursery.cancel_scope.cancel()


async def test_a_wrong_password_is_put_right_without_a_restart(
    cluster: EtcdCluster, tmp_path: Path
) -> None:
    await trio.to_thread.run_sync(enable_auth, cluster, *ITS_OWN)
    settings = settings_for(cluster, tmp_path, "wrong")
    recorder = Recorder()
    async with open_store(settings) as store, trio.open_nursery() as nursery:
        with pytest.raises(StoreRejected, match="authentication failed") as caught:
            await store.snapshot(PREFIXES)
        assert "wrong" not in str(caught.value)
        await following(nursery, store, recorder, watching=False)
        await until(lambda: recorder.errors)
        await trio.Path(settings.password_file).unlink()
        await until(lambda: "password_file" in str(recorder.errors[-1]))
        settings_for(cluster, tmp_path, "secret")
        await until(lambda: recorder.snapshots)
        nursery.cancel_scope.cancel()


async def test_authentication_that_is_switched_on_later(
    cluster: EtcdCluster, tmp_path: Path
) -> None:
    """Off: the user's name is simply not needed. On: the next call logs in."""
    async with open_store(settings_for(cluster, tmp_path, "secret")) as store:
        await store.commit([Put(f"{PREFIXES[0]}a", b"")])
        await trio.to_thread.run_sync(enable_auth, cluster, *ITS_OWN)
        commit = await store.commit([Put(f"{PREFIXES[0]}b", b"")])
        assert commit.applied
        assert len((await store.snapshot(PREFIXES)).items) == 2


async def test_no_user_where_one_is_needed(cluster: EtcdCluster, tmp_path: Path) -> None:
    await trio.to_thread.run_sync(enable_auth, cluster, *ITS_OWN)
    settings = replace(settings_for(cluster, tmp_path, ""), username="", password_file="")
    async with open_store(settings) as store:
        with pytest.raises(StoreRejected, match="user name is empty"):
            await store.snapshot(PREFIXES)


SHORT = 4
"""Seconds that the first client certificate is valid."""


async def test_a_certificate_that_expired_is_replaced_without_a_restart(tmp_path: Path) -> None:
    """And until the files are replaced (the control) every new connection is refused."""
    tls = make_tls(tmp_path)
    make_certificate(tmp_path, "client", "/CN=discod", "extendedKeyUsage=clientAuth", SHORT)
    made = trio.current_time()
    recorder = Recorder()
    with EtcdCluster(tls=tls) as cluster:
        member = cluster.members[0]
        settings = StoreSettings(
            endpoints=cluster.endpoints,
            ca=str(tls.ca),
            cert=str(tls.client_cert),
            key=str(tls.client_key),
        )
        async with open_store(settings) as store, trio.open_nursery() as nursery:
            await following(nursery, store, recorder)
            await trio.sleep_until(made + SHORT + 1)
            await trio.to_thread.run_sync(member.kill)  # what is connected stays so
            member.start()
            await trio.sleep(2)
            with pytest.raises(StoreUnavailable):
                await store.commit([Put(f"{PREFIXES[0]}k", b"v")])
            assert recorder.errors
            make_certificate(tmp_path, "client", "/CN=discod", "extendedKeyUsage=clientAuth")
            with trio.fail_after(10):
                while True:
                    try:
                        commit = await store.commit([Put(f"{PREFIXES[0]}k", b"v")])
                        break
                    except StoreUnavailable:
                        await trio.sleep(0.1)
            await until(lambda: recorder.revisions == [commit.revision])
            nursery.cancel_scope.cancel()
    assert len(recorder.snapshots) == 1
