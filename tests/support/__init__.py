"""Fakes, kits and readers that several folders of tests use."""
