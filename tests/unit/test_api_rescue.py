"""Rescue over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from discod import api_rescue
from discod import http as served
from discod.client import ApiError
from tests.unit.fake_view import FakeView
from tests.unit.rescue_rows import CLIENT, ENTRY, FORGOTTEN, STATUS, VIP, FakeRescue
from tests.unit.test_http import serving

READS = ("status", "entries", "clients", "vips")


def test_every_document_is_json() -> None:
    documents = [
        api_rescue.status("alpha", STATUS),
        api_rescue.entries("alpha", [ENTRY, FORGOTTEN]),
        api_rescue.clients("alpha", [CLIENT]),
        api_rescue.vips("alpha", [VIP]),
    ]
    for document in documents:
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert document["host"] == "alpha"


async def test_reads(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeView(rescue=FakeRescue())) as server:
        found = {what: await server.ask("get", f"/v1/rescue/{what}") for what in READS}
    assert found["status"]["services"][0]["clients"] == 1
    assert (found["status"]["enabled"], found["status"]["max_entries"]) == (True, 4096)
    assert [one["goes_to"] for one in found["entries"]["entries"]] == [
        ["10.101.1.2:80", "10.101.2.2:80"],
        [],
    ]
    assert found["clients"]["clients"] == [CLIENT]
    assert found["vips"]["vips"] == [{**VIP, "endpoints": ["10.101.1.2:80"]}]


@pytest.mark.parametrize("what", READS)
async def test_where_it_is_not_configured(tmp_path: Path, what: str) -> None:
    async with serving(tmp_path) as server:
        with pytest.raises(ApiError, match=r"rescue: expected \[rescue\] enabled = true") as caught:
            await server.ask("get", f"/v1/rescue/{what}")
    assert caught.value.status == 404


async def test_a_release(tmp_path: Path) -> None:
    view = FakeView(rescue=FakeRescue())
    path = "/v1/rescue/vips/release"
    async with serving(tmp_path, view) as server:
        done = await server.ask("post", path, {"service": "db"}, over=server.unix)
        assert done == {"done": "db released"}
        assert view.calls == [("release_vip", "db")]
        for body, status, words in (
            ({"service": "nobody"}, 404, "has an address of its own"),
            ({"service": "web"}, 409, "without an endpoint that is up"),
            ({"service": ""}, 400, 'expected {"service": "NAME"}'),
            ({"service": 7}, 400, 'expected {"service": "NAME"}'),
            ({}, 400, 'expected {"service": "NAME"}'),
            (["db"], 400, 'expected {"service": "NAME"}'),
        ):
            with pytest.raises(ApiError, match=words) as caught:
                await server.ask("post", path, body, over=server.unix)
            assert caught.value.status == status
        with pytest.raises(ApiError, match="control socket only") as caught:
            await server.ask("post", path, {"service": "db"})
        assert caught.value.status == 403
    assert view.calls == [("release_vip", "db")]


async def test_a_release_that_the_store_does_not_confirm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "CHANGE_TIMEOUT", 0.05)
    view = FakeView(rescue=FakeRescue(), change_delay=30)
    async with serving(tmp_path, view) as server:
        with pytest.raises(ApiError, match="has not confirmed it") as caught, trio.fail_after(10):
            body = {"service": "db"}
            await server.ask("post", "/v1/rescue/vips/release", body, over=server.unix)
    assert caught.value.status == 504
    assert view.calls == []
