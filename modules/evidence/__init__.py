"""Proof that a validator signed what it must not. ``README.md`` is the specification."""
