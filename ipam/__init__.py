"""Who holds which address: ranges, pools, leases, and the durable store."""
