"""Tests of whole programs: the command, the documentation, MCP servers, traces."""
