"""Stake: validators, delegations, the validator set, slashing. ``README.md`` is the specification."""
