"""The node's local page and what feeds it; metrics and health beside it.

GET /          the page: earnings, score, health, fed by /status.json and /earnings.json every few seconds
    /metrics   Prometheus        /health   200 or 503, JSON        /status.json        /earnings.json
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.responses import HTMLResponse, JSONResponse, Response

from sds_node.monitoring import LocalPages, Values, health, render
from sds_node.resource.daemon.metrics import METRICS

EARNINGS_S: Final = 15.0
"""Earnings are asked for at most this often, whoever looks at the page."""


class Monitor(LocalPages):
    """Serves what three functions tell: the status, the earnings, the metrics' values."""

    def __init__(
        self,
        status: Callable[[], Awaitable[dict[str, Any]]],
        earnings: Callable[[], Awaitable[dict[str, Any]]],
        values: Callable[[], Awaitable[Values]],
    ) -> None:
        self._status, self._earnings, self._values = status, earnings, values
        self._known: tuple[float, dict[str, Any]] | None = None
        self._asking = asyncio.Lock()
        paths = {
            "/": self._page,
            "/metrics": self._metrics,
            "/health": self._health,
            "/status.json": self._as_status,
            "/earnings.json": self._as_earnings,
        }
        super().__init__(paths, "monitor.port")

    async def _page(self) -> Response:
        return HTMLResponse(PAGE)

    async def _metrics(self) -> Response:
        return render(METRICS, await self._values())

    async def _health(self) -> Response:
        return health((await self._status())["problems"])

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
