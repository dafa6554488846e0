"""Cheats of every actor on a whole network: what each gained, and how it was caught (docs/cheating.md)."""
