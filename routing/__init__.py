"""Routes to the pods of other nodes: direct, or through VXLAN."""
