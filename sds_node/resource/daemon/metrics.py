"""What a resource node measures, for Prometheus. ``METRICS`` declares everything; each is read when somebody asks.

ResourceNode, Upkeep, Hander, Withdrawer ─ plain numbers ─► render ─► /metrics
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Values = dict[str, dict[tuple[str, ...], float]]
"""Of each metric, its value for each set of labels; the empty tuple where it has none."""


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric: ``kind`` is counter or gauge; ``name`` as Prometheus shows it."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


METRICS: Final = (
    Declared("ppd_started_seconds", "gauge", "When this run began, Unix seconds."),
    Declared("ppd_is_healthy", "gauge", "1 if nothing is wrong with the node, else 0; /health says what is."),
    Declared("ppd_free_bytes", "gauge", "Bytes of shares that may still come."),
    Declared("ppd_kept_bytes", "gauge", "Bytes of shares that are kept, trash left out."),
    Declared("ppd_disk_bytes", "gauge", "What all files of the store take on disk, bytes."),
    Declared("ppd_copies", "gauge", "Copies in the store.", ("state",)),
    Declared("ppd_damaged_copies", "gauge", "Copies whose file is damaged or missing."),
    Declared("ppd_transfers", "gauge", "Puts and gets under way."),
    Declared("ppd_transfers_total", "counter", "Puts and gets that ended.", ("method", "outcome")),
    Declared("ppd_connections", "gauge", "Open connections of the wire."),
    Declared("ppd_receipts_pending", "gauge", "Receipts that are ready and not settled."),
    Declared("ppd_receipts_total", "counter", "Receipts handed in, by what meta nodes did with them: held, settled, refused.", ("state",)),
    Declared("ppd_receipts_noz_total", "counter", "What those receipts pay, noz.", ("state",)),
    Declared("ppd_receipts_bytes_total", "counter", "Bytes that receipts handed in for the first time acknowledge.", ("action",)),
    Declared("ppd_meta_nodes_online", "gauge", "Meta nodes that answered a hello not long ago."),
    Declared("ppd_score", "gauge", "The node's score, as a meta node tells it.", ("meta_node",)),
    Declared("ppd_shares", "gauge", "Shares that the ledger knows to be here, as a meta node tells it.", ("meta_node",)),
    Declared("ppd_is_eligible", "gauge", "1 if a meta node would place shares here, else 0.", ("meta_node",)),
    Declared("ppd_maintenance_until_seconds", "gauge", "When announced maintenance ends, Unix seconds; 0 without one."),
    Declared("ppd_upkeep_total", "counter", "Upkeep: scrubbed, scrubbed_bytes, damaged, adopted, expired, purged, abandoned, forgotten.", ("what",)),
    Declared("ppd_chain_age_seconds", "gauge", "How old what is known of the value chain is."),
    Declared("ppd_withdrawn_wei_total", "counter", "Earnings withdrawn by themselves in this run, wei."),
)


def render(values: Values) -> bytes:
    """The values as Prometheus reads them; what has none is left out."""
    registry = CollectorRegistry()
    registry.register(_Collector(values))
    return generate_latest(registry)


class _Collector:
    def __init__(self, values: Values) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for declared in METRICS:
            family: Any
            if declared.kind == "counter":
                family = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
            else:
                family = GaugeMetricFamily(declared.name, declared.help, labels=declared.labels)
            for labels, value in self._values.get(declared.name, {}).items():
                family.add_metric(labels, value)
            yield family
