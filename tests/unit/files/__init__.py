"""Tests of `trio_sagents.files`."""
