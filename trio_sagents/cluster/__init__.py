"""Which process runs a conversation's agent: implementations of `Leases`, and of `Cluster`.

The modules, lowest first. Each module imports only modules that come before it in this list:

    _rules        what every engine of a cluster does alike
    _file         a SQLite file that several processes share
    memory        `MemoryLeases`, `MemoryCluster`: for several `open_sessions` blocks of one process, and for tests
    sqlite        `SqliteLeases`: for several processes of one machine
    sqlite_nodes  `SqliteCluster`: for several processes of one machine
    _postgres_nodes  the tables of a cluster in PostgreSQL
    postgres      `PostgresCluster`: for several machines; needs the extra `postgres`, so import it from there
"""

from trio_sagents.cluster.memory import MemoryCluster, MemoryLeases
from trio_sagents.cluster.sqlite import SqliteLeases
from trio_sagents.cluster.sqlite_nodes import SqliteCluster

__all__ = ("MemoryCluster", "MemoryLeases", "SqliteCluster", "SqliteLeases")
