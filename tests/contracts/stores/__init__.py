"""What every conversation store promises."""
