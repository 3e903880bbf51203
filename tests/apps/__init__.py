"""Whole programs: the command, the documentation, MCP servers, traces."""
