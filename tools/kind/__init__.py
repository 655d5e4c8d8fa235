"""A real Kubernetes cluster on one machine: kind, with docker and a registry or with neither."""
