"""Searches: state machines, simulated schedules, sweeps, kills. Each looks for bugs that nobody has thought of."""
