"""The chat: the command, its loop, its tools."""
