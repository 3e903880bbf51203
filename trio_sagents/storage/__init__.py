"""From a step of a conversation to a store."""
