"""A model server on loop-back that answers by the rules and the plan of the scripted backend.

It sees what is sent and no more: where a rule or a fault needs the labels or the named pieces of a
request, the test makes it known beforehand (`know`).
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from aiohttp import web

from longctx.llm.faults import SILENT, FaultPlan, wire_reply
from longctx.llm.keys import canonical_key
from longctx.llm.scripted import Rules, said
from longctx.llm.types import GenRequest

_OURS = {
    *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed"),
    *("stop", "response_format", "stream"),
}


class FaultServer:
    """A running server, to be used in a `with` statement; `url` is its base with `/v1`.

    Counted are `requests`, `in_flight_peak`, and `by_key` (canonical keys of the model
    `api:<model>`, or of those that were made known); `bodies` and `headers` are what came. Replies
    come after `latency_s` seconds and not before `together` requests have been in flight at once.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        plan: FaultPlan | None = None,
        *,
        model: str = "scripted",
        latency_s: float = 0.0,
        together: int = 0,
        slots: int = 4,
        context: int = 8192,
        api_key: str | None = None,
    ) -> None:
        self.model, self.api_key = model, api_key
        self.slots, self.context = slots, context
        self.requests = self.in_flight = self.in_flight_peak = 0
        self.by_key: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._rules, self._plan = rules or {}, plan or FaultPlan()
        self._latency, self._together = latency_s, together
        self._known: dict[str, tuple[GenRequest, str]] = {}
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def know(self, reqs: Sequence[GenRequest], model_id: str | None = None) -> None:
        """Recognise these requests by what of them is sent."""
        for req in reqs:
            key = canonical_key(req, model_id or f"api:{self.model}")
            self._known.setdefault(self._wire_key(replace(req, sample_index=0)), (req, key))

    def _wire_key(self, req: GenRequest) -> str:
        return canonical_key(req, f"api:{self.model}")

    def __enter__(self) -> "FaultServer":
        self._thread.start()
        assert self._started.wait(30), "the server of the test did not start"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(30)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping, self._enough = asyncio.Event(), asyncio.Event()
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/chat/completions", self._completions)
        app.router.add_get("/health", self._health)
        app.router.add_get("/props", self._props)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._started.set()
        await self._stopping.wait()
        await runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _props(self, request: web.Request) -> web.Response:
        slot = {"n_ctx": self.context}
        return web.json_response({"total_slots": self.slots, "default_generation_settings": slot})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests += 1
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)
        if self.in_flight >= self._together:
            self._enough.set()
        try:
            return await self._reply(request, body)
        finally:
            self.in_flight -= 1

    async def _reply(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.api_key and request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return web.json_response({"error": {"message": "the key is not valid"}}, status=401)
        sent = request_of(body)
        wire = canonical_key(sent, f"api:{body['model']}")
        req, key = self._known.get(wire, (sent, wire))
        self.by_key[key] += 1
        fault = self._plan.next(
            key, stage=req.stage, row_id=req.row_id, with_schema=sent.schema is not None
        )
        await self._enough.wait()
        if self._latency:
            await asyncio.sleep(self._latency)
        if fault and fault.kind in SILENT:
            if fault.kind == "hang":
                await self._stopping.wait()
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        reply = wire_reply(said(req, key, self._rules, body["model"]), fault)
        headers = {"Retry-After": reply.retry_after} if reply.retry_after else {}
        return web.Response(
            status=reply.status, body=reply.body, content_type=reply.content_type, headers=headers
        )


def request_of(body: dict[str, Any]) -> GenRequest:
    """What a body asks for; all that is not known is `extra`, as the sender's was."""
    wanted = body.get("response_format") or {}
    return GenRequest(
        request_id="",
        messages=body["messages"],
        max_tokens=body.get("max_tokens") or body["max_completion_tokens"],
        temperature=body.get("temperature", 0.0),
        top_p=body.get("top_p", 1.0),
        seed=body.get("seed"),
        stop=body.get("stop"),
        schema=wanted.get("json_schema", {}).get("schema"),
        extra={name: value for name, value in body.items() if name not in _OURS},
    )
