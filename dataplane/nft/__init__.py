"""nftables: rulesets as text, elements as raw netlink messages."""
