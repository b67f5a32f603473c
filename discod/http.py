"""The HTTP API: metrics, probes, and the daemon's state and controls.

Rule: translates, and decides nothing: documents are made in `discod.api`, answers in
`discod.explain` and `discod.readiness`, changes by the `View`. What changes anything is accepted on
the control socket only. `docs/api.md` describes every endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from discod import api, api_bgp, api_rescue
from discod.announce_request import AnnounceError, parse_announce
from discod.explain import explain
from discod.http_server import serve_http
from discod.http_stream import Announcements, watch
from discod.metrics import CONTENT_TYPE, Metrics
from discod.model.endpoint import Fault
from discod.model.settings import CheckSettings
from discod.query import QUERY_MAX
from discod.readiness import Gate
from discod.view import BgpView, RescueView, View

__all__ = ["build_app", "serve_http"]

BODY_MAX = 64 * 1024
"""Octets of a request's body; the largest sensible announcement has a few thousand."""
BODY_TIMEOUT = 10.0
"""Seconds until a request's body has to be there."""
CHANGE_TIMEOUT = 30.0
"""Seconds that a drain or a withdrawal may take until the store has confirmed it."""


class _Refused(Exception):
    """A request that gets an error document."""

    def __init__(self, status: int, *faults: Fault) -> None:
        super().__init__(status, faults)
        self.status = status
        self.faults = faults


def build_app(
    view: View, metrics: Metrics, gate: Gate | None = None, checks: CheckSettings | None = None
) -> Starlette:
    """The ASGI application.

    Args:
        view: The daemon.
        metrics: What ``/metrics`` shows.
        gate: The daemon's own memory of which parts were complete; a new one without it.
        checks: Defaults for the checks of ``/v1/announce``.
    """
    handlers = _Handlers(view, metrics, gate or Gate(), checks or CheckSettings())
    reads: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/metrics": handlers.exposition,
        "/livez": handlers.livez,
        "/readyz": handlers.readyz,
        "/v1/services": handlers.services,
        "/v1/services/{name}": handlers.service,
        "/v1/hosts": handlers.hosts,
        "/v1/producers": handlers.producers,
        "/v1/catalog": handlers.catalog,
        "/v1/explain": handlers.explain,
        "/v1/watch": handlers.watch,
        "/v1/sd/prometheus": handlers.prometheus,
        "/v1/bgp/status": handlers.bgp_status,
        "/v1/bgp/peers": handlers.bgp_peers,
        "/v1/bgp/routes": handlers.bgp_routes,
        "/v1/rescue/status": handlers.rescue_status,
        "/v1/rescue/entries": handlers.rescue_entries,
        "/v1/rescue/clients": handlers.rescue_clients,
        "/v1/rescue/vips": handlers.rescue_vips,
    }
    changes: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/v1/drain": handlers.drain,
        "/v1/undrain": handlers.undrain,
        "/v1/announce": handlers.announce,
        "/v1/announce/{id}/withdraw": handlers.withdraw,
        "/v1/rescue/vips/release": handlers.release_vip,
    }
    app = Starlette(
        routes=[
            *(Route(path, handler, methods=["GET"]) for path, handler in reads.items()),
            *(Route(path, handler, methods=["POST"]) for path, handler in changes.items()),
        ],
        exception_handlers={
            HTTPException: _not_routed,
            _Refused: _refused,
            ClientDisconnect: _gone,
            500: _failed,
        },
    )
    app.router.redirect_slashes = False
    return app


class _Handlers:
    def __init__(self, view: View, metrics: Metrics, gate: Gate, checks: CheckSettings) -> None:
        self._view = view
        self._metrics = metrics
        self._gate = gate
        self._checks = checks
        self._announcements = Announcements(view)

    async def exposition(self, _: Request) -> Response:
        return Response(self._metrics.exposition(), headers={"content-type": CONTENT_TYPE})

    async def livez(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        state = self._gate.look(self._view.parts())
        status = 200 if state.ready else 503
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(api.readiness(state), status)
        if state.ready:
            return PlainTextResponse("ok\n")
        lines = [f"{part.name}: {part.detail}" for part in state.blocking] or ["starting"]
        return PlainTextResponse("\n".join(lines) + "\n", status)

    async def services(self, _: Request) -> Response:
        return JSONResponse(api.services(self._view.catalog))

    async def service(self, request: Request) -> Response:
        name = request.path_params["name"]
        document = api.service(self._view.catalog, name)
        if document is None:
            raise _Refused(404, Fault("service", name, "expected a service that is known"))
        return JSONResponse(document)

    async def hosts(self, _: Request) -> Response:
        return JSONResponse(api.hosts(self._view.catalog, self._view.host, self._view.silent))

    async def producers(self, _: Request) -> Response:
        view = self._view
        return JSONResponse(api.producers(view.producers(), view.host, view.catalog.domain))

    async def catalog(self, _: Request) -> Response:
        return JSONResponse(api.catalog_document(self._view.catalog, self._view.store))

    async def explain(self, request: Request) -> Response:
        asked = request.query_params.get("q", "").strip()
        if not 0 < len(asked) <= QUERY_MAX:
            expected = f"expected a name, container or address of 1 to {QUERY_MAX} characters"
            raise _Refused(400, Fault("q", asked[:80], expected))
        view = self._view
        answer = explain(
            asked,
            catalog=view.catalog,
            producers=view.producers(),
            store=view.store,
            parts=view.parts(),
            host=view.host,
            resolve=view.answers,
            silent=view.silent,
            bgp=view.bgp,
            rescue=view.rescue,
        )
        return JSONResponse(api.explanation(answer, view.catalog.domain))

    async def watch(self, _: Request) -> Response:
        return watch(self._view)

    async def prometheus(self, request: Request) -> Response:
        asked = request.query_params
        return JSONResponse(
            api.prometheus(self._view.catalog, asked.get("service", ""), asked.get("tag", ""))
        )

    async def bgp_status(self, _: Request) -> Response:
        return JSONResponse(api_bgp.status(self._view.host, self._bgp().status()))

    async def bgp_peers(self, _: Request) -> Response:
        return JSONResponse(api_bgp.peers(self._view.host, self._bgp().peers()))

    async def bgp_routes(self, _: Request) -> Response:
        return JSONResponse(api_bgp.routes(self._view.host, self._bgp().routes()))

    def _bgp(self) -> BgpView:
        bgp = self._view.bgp
        if bgp is None:
            raise _Refused(404, Fault("bgp", "", "expected [bgp] in this host's configuration"))
        return bgp

    async def rescue_status(self, _: Request) -> Response:
        return JSONResponse(api_rescue.status(self._view.host, self._rescue().status()))

    async def rescue_entries(self, _: Request) -> Response:
        return JSONResponse(api_rescue.entries(self._view.host, self._rescue().entries()))

    async def rescue_clients(self, _: Request) -> Response:
        return JSONResponse(api_rescue.clients(self._view.host, self._rescue().clients()))

    async def rescue_vips(self, _: Request) -> Response:
        return JSONResponse(api_rescue.vips(self._view.host, self._rescue().vips()))

    def _rescue(self) -> RescueView:
        rescue = self._view.rescue
        if rescue is None:
            expected = "expected [rescue] enabled = true or [vip] in this host's configuration"
            raise _Refused(404, Fault("rescue", "", expected))
        return rescue

    async def release_vip(self, request: Request) -> Response:
        _only_local(request)
        document = await _body(request)
        service = document.get("service") if isinstance(document, dict) else None
        if not isinstance(service, str) or not service:
            raise _Refused(
                400, Fault("service", repr(service)[:80], 'expected {"service": "NAME"}')
            )
        try:
            with trio.fail_after(CHANGE_TIMEOUT):
                done = await self._view.release_vip(service)
        except LookupError as error:
            what = str(error.args[0]) if error.args else "expected a service with an address"
            raise _Refused(404, Fault("service", service, what)) from None
        except ValueError as error:
            raise _Refused(409, Fault("service", service, str(error))) from None
        except trio.TooSlowError:
            raise _unconfirmed(request) from None
        return JSONResponse({"done": done})

    async def drain(self, request: Request) -> Response:
        return await self._change(request, self._view.drain)

    async def undrain(self, request: Request) -> Response:
        return await self._change(request, self._view.undrain)

    async def _change(
        self, request: Request, act: Callable[[str | None], Awaitable[str]]
    ) -> Response:
        _only_local(request)
        document = await _body(request) or {}
        container = document.get("container") if isinstance(document, dict) else document
        if not isinstance(document, dict) or not isinstance(container, str | None):
            expected = 'expected {"container": null} or {"container": "NAME"}'
            raise _Refused(400, Fault("container", repr(container)[:80], expected))
        try:
            with trio.fail_after(CHANGE_TIMEOUT):
                done = await act(container or None)
        except LookupError as error:
            what = str(error.args[0]) if error.args else "expected a container of this host"
            raise _Refused(404, Fault("container", container or "", what)) from None
        except trio.TooSlowError:
            raise _unconfirmed(request) from None
        return JSONResponse({"done": done})

    async def announce(self, request: Request) -> Response:
        _only_local(request)
        try:
            services = parse_announce(await _body(request), self._checks)
        except AnnounceError as error:
            raise _Refused(400, *error.faults) from None
        return _Served(lambda *asgi: self._announcements.serve(services, *asgi))

    async def withdraw(self, request: Request) -> Response:
        _only_local(request)
        id_ = request.path_params["id"]
        announcement = self._announcements.open.get(id_)
        if announcement is None:
            raise _Refused(404, Fault("announcement", id_, "expected the id of an open one"))
        try:
            with trio.fail_after(CHANGE_TIMEOUT):
                await announcement.withdraw()
        except trio.TooSlowError:
            raise _unconfirmed(request) from None
        return JSONResponse({"withdrawn": True})


class _Served(Response):
    """Hands the connection to another ASGI callable."""

    def __init__(self, serve: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        super().__init__()
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send)


def _only_local(request: Request) -> None:
    if request.scope.get("state", {}).get("local") is not True:
        expected = (
            "changes are accepted on the control socket only: --api unix:/run/discod/api.sock"
        )
        raise _Refused(403, Fault("connection", "TCP", expected))


async def _body(request: Request) -> Any:
    """The JSON of a request's body; None for an empty one."""
    data = bytearray()
    async with aclosing(request.stream()) as chunks:
        with trio.move_on_after(BODY_TIMEOUT) as waiting:
            async for chunk in chunks:
                data += chunk
                if len(data) > BODY_MAX:
                    raise _Refused(413, Fault("body", "", f"expected at most {BODY_MAX} octets"))
    if waiting.cancelled_caught:
        raise _Refused(408, Fault("body", "", f"expected within {BODY_TIMEOUT:.0f} s"))
    if not data.strip():
        return None
    try:
        return read_json(bytes(data))
    except (ValueError, RecursionError) as error:
        shown = data[:80].decode("utf-8", "backslashreplace")
        raise _Refused(400, Fault("body", shown, f"expected JSON ({error})")) from None


def read_json(data: bytes) -> Any:
    """The JSON that a client sent.

    Raises:
        ValueError, RecursionError: it is none, or has half a surrogate pair, which is no text: no
            store, log or answer could hold it.
    """
    document = json.loads(data)
    json.dumps(document, ensure_ascii=False).encode()
    return document


def _unconfirmed(request: Request) -> _Refused:
    expected = (
        f"the store has not confirmed it within {CHANGE_TIMEOUT:.0f} s; "
        "see `discod ready` and `discod explain`"
    )
    return _Refused(504, Fault("store", request.url.path, expected))


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, _Refused)
    first, *more = error.faults
    return JSONResponse(api.error(first, more), error.status)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        fault = Fault("method", request.method, f"expected {headers.get('Allow', 'another')}")
    else:
        fault = Fault("path", request.url.path[:200], "expected a path of docs/api.md")
    return JSONResponse(api.error(fault), error.status_code, headers)


async def _failed(request: Request, _: Exception) -> Response:
    fault = Fault("path", request.url.path[:200], "the daemon failed; its log says how")
    return JSONResponse(api.error(fault), 500)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it
