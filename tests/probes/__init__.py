"""Probes: each shows that one mend in the kernel is needed, and there."""
