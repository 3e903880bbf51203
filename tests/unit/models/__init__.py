"""Tests of `trio_sagents.models`."""
