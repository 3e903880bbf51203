"""Scenarios: the promises of the library, seen through public names, in virtual time."""
