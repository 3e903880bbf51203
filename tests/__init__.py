"""The tests, in folders named after the question that they answer. CONTRIBUTING.md says which folder answers which question."""
