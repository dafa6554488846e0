"""Metrics: what is declared is served, and the numbers are those of what happened."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from chain.api.rest import build_rest
from chain.metrics import METRICS, Metrics
from tests.support import chain, send


def test_every_declared_metric_is_served_with_its_type_and_nothing_else() -> None:
    metrics = Metrics(chain().apps[0])
    metrics.abci_call_s.labels("commit").observe(0.01)
    metrics.request_s.labels("rest", "200").observe(0.01)
    found = dict(re.findall(r"# TYPE (\S+) (\S+)", metrics.render().decode()))
    found = {name: kind for name, kind in found.items() if not name.endswith("_created")}
    assert found == {one.name: one.kind for one in METRICS}


@pytest.mark.asyncio
async def test_the_numbers_are_those_of_what_happened() -> None:
    driver = chain()
    app = driver.apps[0]
    driver.check_tx(send(2, 3))
    driver.check_tx(send(2, 3, sequence=9))
    driver.next_block([send(2, 3), send(2, 3, sequence=9), b"no transaction"], process=False)
    rest = build_rest(app, ThreadPoolExecutor(1), cors=False, swagger=False, metrics=Metrics(app))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(rest), base_url="http://node") as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/nowhere")).status_code == 501
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert float(values["stratos_block_height"]) == 2
    assert float(values['stratos_txs_total{result="ok"}']) == 1
    assert float(values['stratos_txs_total{result="failed"}']) == 2
    assert float(values['stratos_checks_total{result="ok"}']) == 1
    assert float(values['stratos_checks_total{result="failed"}']) == 1
    assert float(values["stratos_store_native_core"]) == 1
    assert float(values['stratos_requests_seconds_count{interface="rest",status="501"}']) == 1
