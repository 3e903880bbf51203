"""Tests of `trio_sagents._sqlite`."""
