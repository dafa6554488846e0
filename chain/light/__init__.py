"""CometBFT's chain seen from outside: validator sets, header hashes and commits, and the light client that trusts nothing else."""
