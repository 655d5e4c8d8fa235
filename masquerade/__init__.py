"""What pods send out of the cluster leaves with their node's address."""
