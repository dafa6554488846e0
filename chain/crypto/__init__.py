"""Keys, addresses, and the checking of signatures."""
