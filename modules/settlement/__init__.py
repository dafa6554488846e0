"""Commitments of epochs, keys of meta nodes, and the proofs that catch lies."""
