"""Epochs and rewards: what other modules and the messages may do with them."""

from __future__ import annotations

from modules.pot.maturity import Maturity


class PotKeeper(Maturity):
    """Reports are paid, rewards mature, nodes are slashed, the supply is kept."""
