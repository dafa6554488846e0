"""The upgrade module: the chain stops at an agreed height, and goes on with the next version. ``README.md`` is the specification."""
