"""Which process runs a conversation's agent: implementations of `Leases`.

MemoryLeases    several `open_sessions` blocks of one process, and tests
SqliteLeases    several processes of one machine
"""

from trio_sagents.cluster.memory import MemoryLeases
from trio_sagents.cluster.sqlite import SqliteLeases

__all__ = ("MemoryLeases", "SqliteLeases")
