"""The running resource node: its home, its connections to meta nodes, upkeep, metrics, its control socket."""
