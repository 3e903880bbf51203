"""Tests of `trio_sagents.agent`."""
