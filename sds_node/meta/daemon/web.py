"""What a meta node shows on its own machine: metrics, health, status.

GET /metrics   Prometheus        /health   200 or 503, JSON        /status.json
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from sds_node.monitoring import Declared, LocalPages, Values, health, render

METRICS: Final = (
    Declared("spd_is_healthy", "gauge", "1 if nothing is wrong with the node, else 0; /health says what is."),
    Declared("spd_chain_height", "gauge", "Last height of the value chain that is known."),
    Declared("spd_observed_height", "gauge", "Last height that the ledger has observed."),
    Declared("spd_ledger_sequence", "gauge", "Operations in the ledger's log."),
    Declared("spd_nodes", "gauge", "Resource nodes that the ledger knows, by what they are in.", ("state",)),
    Declared("spd_sessions", "gauge", "Sessions of users."),
    Declared("spd_leases", "gauge", "Leases in hand."),
    Declared("spd_connections", "gauge", "Open connections of the wire."),
    Declared("spd_settled_noz_total", "counter", "What receipts moved into earned in this run, noz."),
    Declared("spd_settled_receipts_total", "counter", "Receipts settled in this run."),
    Declared("spd_epochs_reported_total", "counter", "Epochs that this meta node reported in this run."),
    Declared("spd_files_reported_total", "counter", "Public files that this meta node reported to the chain in this run."),
    Declared("spd_files_unreported", "gauge", "Files for which it is still to be seen whether the chain knows them."),
)


class Monitor(LocalPages):
    """Serves what ``status`` and ``values`` tell; a status has ``problems``."""

    def __init__(self, status: Callable[[], dict[str, Any]], values: Callable[[], Values]) -> None:
        self._status, self._values = status, values
        super().__init__({"/metrics": self._metrics, "/health": self._health, "/status.json": self._as_status}, "metrics.port")

    async def _metrics(self) -> Response:
        return render(METRICS, self._values())

    async def _health(self) -> Response:
        return health(self._status()["problems"])

    async def _as_status(self) -> Response:
        return JSONResponse(self._status())
