"""The only package that talks to the API server of Kubernetes, and the only one that knows HTTP."""
