"""Who answers on the local network for an address of a Service of type LoadBalancer."""
