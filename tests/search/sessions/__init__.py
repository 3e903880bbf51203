"""State machines over the whole library, storms against it, and the planted bugs that prove both."""
