"""The command line of the node, ``stchaind``."""

import os

# CometBFT is started after gRPC's threads: a fork that execs at once needs no handlers, nor a line on the screen that there were none.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
