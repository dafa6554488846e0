"""The console scripts ``ppd`` and ``spd``: see ``chain/launch.py``. Their modules are named, not imported."""

from __future__ import annotations

from chain.launch import launch


def ppd() -> None:
    """Console script ``ppd``."""
    launch("sds_node.cli.ppd")


def spd() -> None:
    """Console script ``spd``."""
    launch("sds_node.cli.spd")
