"""Crisis: whoever pays may have an invariant checked. ``README.md`` is the specification."""
