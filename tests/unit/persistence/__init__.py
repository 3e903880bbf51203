"""Tests of `trio_sagents.persistence`."""
