"""What every store, lease, provider and file system promises: the conformance kits, and each implementation through them."""
