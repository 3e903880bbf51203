"""Real crashes: processes killed at any moment, disks that lose power, and SIGTERM; and the planted bugs that prove the tests."""
