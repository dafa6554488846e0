"""The node's local HTTP: metrics for Prometheus, health, status as JSON, and a page that shows both to its owner.

    GET /          the page: earnings, score, health, fed by /status.json and /earnings.json every few seconds
        /metrics   Prometheus        /health   200 or 503, JSON        /status.json        /earnings.json

Nothing here changes anything. Only requests that name this machine are answered, so that a website in the owner's browser reads nothing by a name of
its own that leads here; other sites' scripts get no permission to read either. Source: storage-interfaces.md 9 (observability).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from sds_node.resource.daemon.metrics import CONTENT_TYPE, Values, render

log = structlog.get_logger("monitor")

MAX_CONNECTIONS: Final = 100
EARNINGS_S: Final = 15.0
"""Earnings are asked for at most this often, whoever looks at the page."""
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Monitor:
    """Serves what three functions tell: the status, the earnings, the metrics' values."""

    def __init__(
        self,
        status: Callable[[], Awaitable[dict[str, Any]]],
        earnings: Callable[[], Awaitable[dict[str, Any]]],
        values: Callable[[], Awaitable[Values]],
    ) -> None:
        self._status, self._earnings, self._values = status, earnings, values
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._known: tuple[float, dict[str, Any]] | None = None
        self._asking = asyncio.Lock()
        self.host, self.port = "", 0

    async def start(self, host: str, port: int) -> None:
        """Listen at an IP address and a port, 0 for a free one. Raises OSError."""
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            raise OSError(f"metrics cannot be served at {host}:{port}: {error.strerror}; change monitor.port") from None
        self.host, self.port = host, listener.getsockname()[1]
        paths = {
            "/": self._page,
            "/metrics": self._metrics,
            "/health": self._health,
            "/status.json": self._as_status,
            "/earnings.json": self._as_earnings,
        }
        app = Starlette(routes=[Route(path, self._guarded(handler)) for path, handler in paths.items()])
        settings = uvicorn.Config(
            app, http="h11", log_level="warning", lifespan="off", limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=2, server_header=False
        )
        self._server = uvicorn.Server(settings)
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        self._task = asyncio.ensure_future(self._server.serve(sockets=[listener]))
        log.info("monitor listens", url=f"http://{host}:{self.port}/")

    async def close(self) -> None:
        """Let running requests end, and close."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.gather(self._task, return_exceptions=True)

    def _guarded(self, handler: Callable[[], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            if not self._is_here(request.headers.get("host", "")):
                return Response("this page is for its own machine\n", 403)
            response = await handler()
            response.headers.update(_HEADERS)
            return response

        return guarded

    def _is_here(self, host: str) -> bool:
        """Whether a request names an IP address or localhost; a name may be anybody's who lets it lead here."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        if name == "localhost":
            return True
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name.strip("[]"))
            return True
        return False

    async def _page(self) -> Response:
        return HTMLResponse(PAGE)

    async def _metrics(self) -> Response:
        return Response(render(await self._values()), media_type=CONTENT_TYPE)

    async def _health(self) -> Response:
        problems = (await self._status())["problems"]
        return JSONResponse({"is_healthy": not problems, "problems": problems}, 503 if problems else 200)

    async def _as_status(self) -> Response:
        return JSONResponse(await self._status())

    async def _as_earnings(self) -> Response:
        async with self._asking:
            if self._known is None or time.monotonic() - self._known[0] > EARNINGS_S:
                self._known = time.monotonic(), await self._earnings()
        return JSONResponse(self._known[1])


PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Stratos resource node</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.4rem;margin:0}h2{font-size:1rem;margin:2rem 0 .5rem}code{font-size:.85em;overflow-wrap:anywhere}
.row{display:flex;flex-wrap:wrap;gap:1rem;margin-top:1rem}.box{flex:1 1 12rem;border:1px solid #d0d7de;border-radius:8px;padding:.75rem 1rem}
.box b{display:block;font-size:1.3rem}.box span{color:#57606a;font-size:.85rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d0d7de;vertical-align:top}
.good{color:#116329}.bad{color:#a40e26}
@media (prefers-color-scheme: dark){body{color:#e6edf3;background:#0d1117}.box,td,th{border-color:#30363d}.box span{color:#8b949e}.good{color:#3fb950}.bad{color:#f85149}}
</style></head><body>
<h1>Resource node</h1><code id="node"></code><p id="health" role="status">asking the node…</p>
<h2>Earnings</h2><div class="row" id="earnings"></div>
<h2>Node</h2><div class="row" id="figures"></div>
<h2>Meta nodes</h2><table><thead><tr><th>meta node</th><th>standing</th><th>score</th><th>shares</th><th>says</th></tr></thead><tbody id="metas"></tbody></table>
<script>
const at=id=>document.getElementById(id), make=(tag,text)=>{const e=document.createElement(tag);e.textContent=text;return e};
const size=n=>{const u=["B","KiB","MiB","GiB","TiB","PiB"];let i=0;n=Number(n);while(n>=1024&&i<5){n/=1024;i++}return n.toFixed(i?1:0)+" "+u[i]};
const stos=w=>{w=BigInt(w);const f=(w%(10n**18n)).toString().padStart(18,"0").slice(0,6).replace(/0+$/,"");return (w/10n**18n).toString()+(f?"."+f:"")+" STOS"};
const boxes=(id,list)=>at(id).replaceChildren(...list.map(([name,text])=>{const b=make("div","");b.className="box";b.append(make("b",text),make("span",name));return b}));
async function look(){try{const s=await(await fetch("status.json")).json();at("node").textContent=s.node;
const h=at("health");h.replaceChildren(...(s.problems.length?s.problems.map(p=>make("div",p)):[make("div","all is well")]));h.className=s.problems.length?"bad":"good";
boxes("figures",[["free",size(s.free_bytes)],["kept",size(s.kept_bytes)],["shares",s.copies],["transfers now",s.transfers],["receipts not settled",s.pending_receipts],
["running for",Math.floor((s.time_s-s.started_s)/3600)+" h"],["maintenance",s.maintenance_until_s?"until "+new Date(s.maintenance_until_s*1000).toLocaleString():"none"]]);
at("metas").replaceChildren(...s.meta_nodes.map(m=>{const r=make("tr","");const c=make("td","");c.append(make("code",m.meta_node));
r.append(c,make("td",m.is_online?m.standing:"away"),make("td",m.score),make("td",m.shares),make("td",m.problem||m.why_not_eligible||"places shares here"));return r}));
}catch(e){at("health").textContent="the node does not answer";at("health").className="bad"}}
async function earn(){try{const e=await(await fetch("earnings.json")).json();const list=[];
if(e.chain)list.push(["to withdraw now",stos(e.chain.mature_wei)],["maturing",stos(e.chain.immature_wei)]);
if(e.network)list.push(["earned, in the next report",e.network.earned_noz+" noz"],["held, in the next window",e.network.held_noz+" noz"],["escrow of kept shares",e.network.escrow_noz+" noz"]);
boxes("earnings",list.length?list:[["earnings",(e.problems||[]).join("; ")||"unknown"]])}catch(e){}}
look();earn();setInterval(look,5000);setInterval(earn,20000);
</script></body></html>
"""
