"""Pot: work is reported, paid, and its rewards mature."""
