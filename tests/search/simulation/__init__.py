"""The library under the simulator: every public coroutine, every fault, every crash, and schedules without end."""
