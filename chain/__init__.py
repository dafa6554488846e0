"""The node: everything between CometBFT's socket and the modules. See ``docs/architecture.md`` for the walk of one MsgSend."""
