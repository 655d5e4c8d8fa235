"""Services: their virtual addresses and ports, translated to endpoints by nftables."""
