"""Tests of `trio_sagents.cli`."""
