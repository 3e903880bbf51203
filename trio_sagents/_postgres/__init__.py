"""Opening databases in PostgreSQL, and calls in them, for the store and for the cluster. Needs the extra `postgres`.

The modules, lowest first. Each module imports only modules that come before it in this list:

    migrating   bringing a schema up to date
    database    a pool of connections, and calls in threads that can be cancelled
"""

from trio_sagents._postgres.database import CANCEL_TIMEOUT, Database, words_of
from trio_sagents._postgres.migrating import Connection, migrate

__all__ = ("CANCEL_TIMEOUT", "Connection", "Database", "migrate", "words_of")
