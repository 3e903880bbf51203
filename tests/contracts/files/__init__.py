"""What every backend of files promises."""
