"""Governance: proposals, deposits, votes, and the messages that a passed proposal runs. ``README.md`` is the specification."""
