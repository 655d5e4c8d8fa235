"""The node daemon: wiring, socket server, reconciliation, health, metrics."""
