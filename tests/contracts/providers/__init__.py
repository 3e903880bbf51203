"""What every model adapter promises, over the wire."""
