"""Mutation tests: planted bugs, written by hand, and generated mutants, made by mutmut."""
