"""The tests, by the question that they answer; CONTRIBUTING says which folder answers which."""
