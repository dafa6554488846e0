"""What a wallet can check against the roots that the chain has of an epoch: ``sds_node/proofs.py``, which users have, too."""

from sds_node.proofs import *  # noqa: F403
