"""Scenarios: what the design promises, through public names, in virtual time."""
