"""What every engine of a cluster promises."""
