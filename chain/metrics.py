"""What a node measures, for Prometheus. ``METRICS`` declares everything; ``docs/metrics.md`` is made from it.

Work keeps plain integers (``Counts``); they are read when somebody asks, so a transaction costs an addition and nothing can reach
consensus. Only the time of ABCI calls, requests and storage work is observed as it happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric: ``kind`` is counter, gauge or histogram; ``name`` as Prometheus shows it."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


METRICS: Final = (
    Declared("stratos_block_height", "gauge", "Height of the latest committed block."),
    Declared("stratos_block_time_seconds", "gauge", "Block time of the latest committed block, Unix seconds."),
    Declared("stratos_txs_total", "counter", "Transactions executed in blocks.", ("result",)),
    Declared("stratos_checks_total", "counter", "Answers of CheckTx to new transactions.", ("result",)),
    Declared("stratos_rechecks_total", "counter", "Answers of CheckTx to transactions already in the mempool.", ("result",)),
    Declared("stratos_proposals_total", "counter", "Answers of ProcessProposal.", ("result",)),
    Declared("stratos_panics_total", "counter", "Exceptions that no rule raised; the log has their traceback.", ("call",)),
    Declared("stratos_pool_txs", "gauge", "Transactions waiting in the application's pool."),
    Declared("stratos_abci_call_seconds", "histogram", "Time of ABCI calls; a batch of CheckTx counts as one.", ("call",)),
    Declared("stratos_requests_seconds", "histogram", "Time of gRPC and REST requests.", ("interface", "status")),
    Declared("stratos_store_nodes", "gauge", "Tree nodes in memory.", ("store",)),
    Declared("stratos_store_pending_versions", "gauge", "Committed versions whose nodes are not on disk yet."),
    Declared("stratos_store_oldest_version", "gauge", "Oldest version that pruning kept."),
    Declared("stratos_store_native_core", "gauge", "1 if the native tree is in use, 0 if the plain one."),
    Declared("stratos_snapshot_height", "gauge", "Height of the newest state-sync snapshot; 0 without one."),
)
_BY_NAME: Final = {one.name: one for one in METRICS}


@dataclass(slots=True)
class Counts:
    """Running totals that the application keeps."""

    txs_ok: int = 0
    txs_failed: int = 0
    checks_ok: int = 0
    checks_failed: int = 0
    rechecks_ok: int = 0
    rechecks_failed: int = 0
    proposals_accepted: int = 0
    proposals_rejected: int = 0
    panics: dict[str, int] = field(default_factory=dict)

    def panicked(self, call: str) -> None:
        """Count an exception that no rule raised."""
        self.panics[call] = self.panics.get(call, 0) + 1


class Metrics:
    """The metrics of one node: ``app`` is the Application."""

    def __init__(self, app: Any) -> None:
        self.registry = CollectorRegistry()
        self.abci_call_s = self._histogram("stratos_abci_call_seconds")
        self.request_s = self._histogram("stratos_requests_seconds")
        self.registry.register(_Collector(app))

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def _histogram(self, name: str) -> Histogram:
        declared = _BY_NAME[name]
        return Histogram(name, declared.help, declared.labels, buckets=BUCKETS_S, registry=self.registry)


class _Collector:
    """Reads what the application counts, when asked."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        app = self._app
        counts: Counts = app.counts
        store = app.store
        newest = app.snapshots.folder.list()[:1] if app.snapshots is not None else []
        values: dict[str, Any] = {
            "stratos_block_height": app.latest_height,
            "stratos_block_time_seconds": app.latest_time_ns / 1e9,
            "stratos_txs_total": {"ok": counts.txs_ok, "failed": counts.txs_failed},
            "stratos_checks_total": {"ok": counts.checks_ok, "failed": counts.checks_failed},
            "stratos_rechecks_total": {"ok": counts.rechecks_ok, "failed": counts.rechecks_failed},
            "stratos_proposals_total": {"accepted": counts.proposals_accepted, "rejected": counts.proposals_rejected},
            "stratos_panics_total": {"transaction": app.executor.panics, **counts.panics},
            "stratos_pool_txs": len(app.pool),
            "stratos_store_nodes": store.nodes_in_memory(),
            "stratos_store_pending_versions": store.pending_versions(),
            "stratos_store_oldest_version": store.oldest_version(),
            "stratos_store_native_core": int(store.is_native),
            "stratos_snapshot_height": newest[0].height if newest else 0,
        }
        for name, value in values.items():
            yield _family(_BY_NAME[name], value)


def _family(declared: Declared, value: Any) -> Metric:
    kind = CounterMetricFamily if declared.kind == "counter" else GaugeMetricFamily
    family = kind(declared.name, declared.help, labels=declared.labels)
    for label, number in value.items() if declared.labels else ():
        family.add_metric([label], number)
    if not declared.labels:
        family.add_metric([], value)
    return family
