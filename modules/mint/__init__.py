"""Mint: new coins of each block, by inflation."""
