"""What every store, lease, provider and file system promises: each implementation runs through the conformance kit of its port."""
