"""What the library costs, as ratios: `python -m benchmarks` prints one table. README.md says how to read it."""
