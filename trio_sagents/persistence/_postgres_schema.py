"""The tables of a `PostgresStore`: one history of plain SQL, each step of which old programs can live with."""

from typing import Final, LiteralString

import psycopg

from trio_sagents.exceptions import PersistenceError

MIGRATIONS: Final[tuple[LiteralString, ...]] = (
    """
    CREATE SEQUENCE trio_sagents_change;
    CREATE TABLE trio_sagents_conversations (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        conversation_id text NOT NULL UNIQUE,
        agent_id text NOT NULL,
        owner text NOT NULL,
        epoch bigint NOT NULL,
        revision bigint NOT NULL,
        change bigint NOT NULL,
        message_count bigint NOT NULL,
        title text,
        updated_at text NOT NULL,
        waiting_since bigint
    );
    CREATE INDEX trio_sagents_changed ON trio_sagents_conversations (change);
    CREATE INDEX trio_sagents_changed_by_owner ON trio_sagents_conversations (owner, change);
    CREATE INDEX trio_sagents_waiting ON trio_sagents_conversations (waiting_since) WHERE waiting_since IS NOT NULL;
    CREATE TABLE trio_sagents_messages (
        conversation bigint NOT NULL REFERENCES trio_sagents_conversations ON DELETE CASCADE,
        place bigint GENERATED ALWAYS AS IDENTITY,
        body text NOT NULL,
        PRIMARY KEY (conversation, place)
    );
    CREATE TABLE trio_sagents_queue (
        conversation bigint NOT NULL REFERENCES trio_sagents_conversations ON DELETE CASCADE,
        place bigint GENERATED ALWAYS AS IDENTITY,
        message_id text NOT NULL,
        body text NOT NULL,
        PRIMARY KEY (conversation, message_id)
    );
    CREATE TABLE trio_sagents_message_ids (
        conversation bigint NOT NULL REFERENCES trio_sagents_conversations ON DELETE CASCADE,
        message_id text NOT NULL,
        digest text NOT NULL,
        PRIMARY KEY (conversation, message_id)
    );
    CREATE TABLE trio_sagents_state (
        conversation bigint NOT NULL REFERENCES trio_sagents_conversations ON DELETE CASCADE,
        name text NOT NULL,
        body text NOT NULL,
        PRIMARY KEY (conversation, name)
    );
    CREATE TABLE trio_sagents_transcript (
        conversation bigint NOT NULL REFERENCES trio_sagents_conversations ON DELETE CASCADE,
        place bigint GENERATED ALWAYS AS IDENTITY,
        row_id text NOT NULL,
        message_id text NOT NULL,
        role text NOT NULL,
        content_type text NOT NULL,
        content text NOT NULL,
        status text NOT NULL,
        created_at text NOT NULL,
        PRIMARY KEY (conversation, row_id)
    );
    CREATE UNIQUE INDEX trio_sagents_places ON trio_sagents_transcript (conversation, place);
    """,
    "CREATE INDEX trio_sagents_unfinished ON trio_sagents_state (conversation) WHERE name = 'unfinished'",
)
"""By version, from 1. A step is never changed after it was released; new columns have defaults."""
_LOCK: Final = 0x7472696F5F736167
"""The advisory lock of those who migrate: the letters "trio_sag"."""


def prepare(connection: "psycopg.Connection[tuple[object, ...]]") -> None:
    """Bring the schema up to date, in one transaction. Of several programs at once, one does it, and the others wait.

    Raises:
        PersistenceError: a later version of the library has made the schema.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute("CREATE TABLE IF NOT EXISTS trio_sagents_schema (version integer NOT NULL)")
        found = connection.execute("SELECT max(version) FROM trio_sagents_schema").fetchone()
        version = found[0] if found is not None and isinstance(found[0], int) else 0
        if version > len(MIGRATIONS):
            raise PersistenceError(
                f"the database has version {version} of the schema, and this version of the library knows {len(MIGRATIONS)}: "
                "use a version of the library that is at least as new as the one that made the schema"
            )
        for number, step in enumerate(MIGRATIONS[version:], version + 1):
            connection.execute(step)
            connection.execute("INSERT INTO trio_sagents_schema VALUES (%s)", (number,))
