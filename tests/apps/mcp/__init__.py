"""MCP servers and connections to them."""
