"""A localnet under load while its nodes are killed, paused, cut off, slowed down, emptied and made to sign twice."""
