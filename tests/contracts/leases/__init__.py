"""What every kind of lease promises."""
