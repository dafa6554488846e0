"""ABCI 2.0 (CometBFT v0.38): the server that CometBFT drives, and the client the test driver uses. ``README.md`` tells the whole."""
