"""Tests of `trio_sagents.supervisor`."""
