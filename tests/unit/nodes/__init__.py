"""The unit tests of `trio_sagents.nodes`."""
