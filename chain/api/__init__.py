"""How the world asks: gRPC, REST and metrics, all from the same descriptors and handlers."""
