"""The consensus parameters that CometBFT runs under. ``README.md`` is the specification."""
