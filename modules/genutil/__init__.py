"""Genesis transactions: the validators a chain starts with. ``README.md`` is the specification."""
