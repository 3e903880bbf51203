"""Pure values: no Trio, no input or output, no clock."""
