"""For module authors: drives the application without CometBFT, with real headers, commits and votes. ``README.md`` shows how."""
