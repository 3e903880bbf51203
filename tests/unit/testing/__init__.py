"""Tests of `trio_sagents.testing`."""
