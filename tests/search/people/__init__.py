"""People in the loop."""
