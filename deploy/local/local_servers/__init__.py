"""Real database servers on this machine's loopback addresses, without containers."""
