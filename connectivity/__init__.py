"""The self-test of a cluster's network: pods that talk along every path there is."""
