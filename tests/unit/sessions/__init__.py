"""Tests of `trio_sagents.data`."""
