"""What several folders of tests use: fakes, kits, readers."""
