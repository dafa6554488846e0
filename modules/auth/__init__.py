"""Accounts: addresses, keys, numbers and sequences. ``README.md`` is the specification."""
