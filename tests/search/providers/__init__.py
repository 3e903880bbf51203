"""A provider that is fuzzed: good streams, mutated, and what no adapter may make of them."""
