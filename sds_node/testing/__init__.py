"""A whole storage network in one process: the value chain on the consensus driver, meta nodes, resource nodes and users, with faults on demand.

Real parts throughout: the chain's application, ledgers on disk, stores, sockets. What is played is CometBFT, by ``chain.testing``, and time.
"""
