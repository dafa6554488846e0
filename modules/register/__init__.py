"""Register: deposits of storage nodes. So far its arithmetic alone."""
