"""What a resource node measures, for Prometheus. Each is read when somebody asks (``ResourceNode.values``)."""

from __future__ import annotations

from typing import Final

from sds_node.monitoring import Declared

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
