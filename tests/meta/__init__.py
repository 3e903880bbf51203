"""Tests about the project itself: its imports, its public names, its package."""
