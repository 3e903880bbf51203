"""What the machines found: each bug as a test with the shrunk steps, by hand."""
