"""Which process runs a conversation's agent: implementations of `Leases`.

The modules, lowest first. Each module imports only modules that come before it in this list:

    memory    `MemoryLeases`: for several `open_sessions` blocks of one process, and for tests
    sqlite    `SqliteLeases`: for several processes of one machine
"""

from trio_sagents.cluster.memory import MemoryLeases
from trio_sagents.cluster.sqlite import SqliteLeases

__all__ = ("MemoryLeases", "SqliteLeases")
