"""Coins: who holds how many, how many there are, and how they move. ``README.md`` is the specification."""
