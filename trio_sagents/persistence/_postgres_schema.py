"""The tables of a `PostgresStore`: one history of plain SQL, each step of which old programs can live with."""

from typing import Final, LiteralString

from trio_sagents._postgres import Connection, migrate

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
    """
    CREATE TABLE trio_sagents_checkpoints (
        conversation bigint PRIMARY KEY REFERENCES trio_sagents_conversations ON DELETE CASCADE,
        lead bigint NOT NULL,
        lead_place bigint NOT NULL,
        older bigint NOT NULL,
        last_place bigint NOT NULL
    );
    CREATE TABLE trio_sagents_known (
        conversation bigint NOT NULL REFERENCES trio_sagents_conversations ON DELETE CASCADE,
        name text NOT NULL,
        place bigint NOT NULL,
        last_place bigint NOT NULL,
        PRIMARY KEY (conversation, name)
    );
    """,
)
"""By version, from 1. A step is never changed after it was released; new columns have defaults."""


def prepare(connection: Connection) -> None:
    """Bring the schema up to date, in one transaction. Of several programs at once, one does it, and the others wait.

    Raises:
        PersistenceError: a later version of the library has made the schema.
    """
    migrate(connection, "trio_sagents_schema", MIGRATIONS)
