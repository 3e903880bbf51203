"""Tests of `trio_sagents.broadcast`."""
