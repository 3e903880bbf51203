"""The tables of a `PostgresCluster`, and what is done in them. Every function runs in a thread.

Locks are taken in one order, so that nobody deadlocks: first the row of a claim, then the row of the node that has it. So a node is removed
in two transactions: first its row, then its claims, which are worth nothing without it.
"""

import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Final, LiteralString, cast

from trio_sagents._postgres import Connection, migrate
from trio_sagents.cluster._rules import SWEPT_AFTER
from trio_sagents.exceptions import RegistryUnavailable
from trio_sagents.nodes import Claim, Mail, Node, NodeInfo, Received

MIGRATIONS: Final[tuple[LiteralString, ...]] = (
    """
    CREATE TABLE trio_sagents_nodes (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        node_id text NOT NULL UNIQUE,
        name text NOT NULL,
        code_version text NOT NULL,
        state_version integer NOT NULL,
        is_draining boolean NOT NULL DEFAULT false,
        joined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        ttl double precision NOT NULL,
        ends_at timestamptz NOT NULL
    );
    CREATE TABLE trio_sagents_claims (
        conversation_id text PRIMARY KEY,
        node_id text NOT NULL
    );
    CREATE INDEX trio_sagents_claims_by_node ON trio_sagents_claims (node_id);
    CREATE UNLOGGED TABLE trio_sagents_mail (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        recipient text NOT NULL,
        sender text NOT NULL,
        body text NOT NULL
    );
    CREATE INDEX trio_sagents_mail_by_recipient ON trio_sagents_mail (recipient, number);
    """,
)
"""By version, from 1. A step is never changed after it was released; new columns have defaults."""
_JOIN: Final = """
    INSERT INTO trio_sagents_nodes (node_id, name, code_version, state_version, ttl, ends_at)
    VALUES (%(id)s, %(name)s, %(code)s, %(state)s, %(ttl)s, clock_timestamp() + make_interval(secs => %(ttl)s))
    ON CONFLICT (node_id) DO UPDATE SET name = %(name)s, code_version = %(code)s, state_version = %(state)s, is_draining = false,
        ttl = %(ttl)s, ends_at = clock_timestamp() + make_interval(secs => %(ttl)s)
"""


def prepare(connection: Connection) -> None:
    """Bring the tables up to date; PersistenceError if a later version of the library has made them."""
    migrate(connection, "trio_sagents_cluster_schema", MIGRATIONS)


# ── nodes


def join(connection: Connection, node: Node, ttl: float) -> None:
    """Add a node, and sweep."""
    with connection.transaction():
        values = {"id": node.node_id, "name": node.name, "code": node.code_version, "state": node.state_version, "ttl": ttl}
        connection.execute(_JOIN, values)
    _sweep(connection)


def renew(connection: Connection, node_id: str, ttl: float, *, is_draining: bool) -> bool:
    """Renew the lease of a node, and sweep; return whether the node is there."""
    with connection.transaction():
        renewed = connection.execute(
            "UPDATE trio_sagents_nodes SET ttl = %(ttl)s, ends_at = clock_timestamp() + make_interval(secs => %(ttl)s), "
            "is_draining = %(draining)s WHERE node_id = %(id)s",
            {"ttl": ttl, "draining": is_draining, "id": node_id},
        )
    _sweep(connection)
    return renewed.rowcount > 0


def leave(connection: Connection, node_id: str) -> None:
    """Remove a node with its claims and its mail."""
    with connection.transaction():
        connection.execute("DELETE FROM trio_sagents_nodes WHERE node_id = %s", (node_id,))
    _forget(connection, node_id)


def _sweep(connection: Connection) -> None:
    with connection.transaction():
        rows = connection.execute(
            "DELETE FROM trio_sagents_nodes WHERE ends_at + make_interval(secs => %s * ttl) <= clock_timestamp() RETURNING node_id",
            (SWEPT_AFTER,),
        ).fetchall()
    for (node_id,) in rows:
        _forget(connection, str(node_id))


def _forget(connection: Connection, node_id: str) -> None:
    with connection.transaction():
        connection.execute("DELETE FROM trio_sagents_claims WHERE node_id = %s", (node_id,))
        connection.execute("DELETE FROM trio_sagents_mail WHERE recipient = %s", (node_id,))


def nodes(connection: Connection) -> Sequence[NodeInfo]:
    """Return all nodes, the oldest first."""
    rows = connection.execute(
        "SELECT node_id, name, code_version, state_version, is_draining, joined_at, "
        "extract(epoch FROM ends_at - clock_timestamp())::float8, "
        "(SELECT count(*) FROM trio_sagents_claims AS claims WHERE claims.node_id = nodes.node_id) "
        "FROM trio_sagents_nodes AS nodes ORDER BY number"
    ).fetchall()
    return tuple(
        NodeInfo(
            Node(str(node_id), str(name), str(code_version), cast("int", state_version)),
            bool(is_draining),
            cast("datetime.datetime", joined_at),
            cast("float", left),
            cast("int", claims),
        )
        for node_id, name, code_version, state_version, is_draining, joined_at, left, claims in rows
    )


# ── conversations


def claim(connection: Connection, conversation_id: str, node_id: str) -> Claim | None:
    """Let a node have a conversation, unless another node has it whose lease lasts."""
    own = connection.execute(
        "SELECT extract(epoch FROM ends_at - clock_timestamp())::float8, is_draining FROM trio_sagents_nodes WHERE node_id = %s", (node_id,)
    ).fetchone()
    if own is None or cast("float", own[0]) <= 0:
        raise RegistryUnavailable("the lease of this node has ended, so it cannot take a conversation")
    if own[1]:
        raise RegistryUnavailable("this node is draining, so it takes no conversation")
    while True:
        inserted = connection.execute(
            "INSERT INTO trio_sagents_claims VALUES (%s, %s) ON CONFLICT (conversation_id) DO NOTHING", (conversation_id, node_id)
        )
        if inserted.rowcount:
            return None
        found = connection.execute(
            "SELECT node_id FROM trio_sagents_claims WHERE conversation_id = %s FOR UPDATE", (conversation_id,)
        ).fetchone()
        if found is None:
            continue  # it was released at this moment
        if found[0] == node_id:
            return None
        # The row of the other node is locked, so that its late renewal is either seen here, or sees what was taken here.
        left = connection.execute(
            "SELECT extract(epoch FROM ends_at - clock_timestamp())::float8 FROM trio_sagents_nodes WHERE node_id = %s FOR UPDATE",
            (found[0],),
        ).fetchone()
        if left is not None and (remaining := cast("float", left[0])) > 0:
            return Claim(str(found[0]), remaining)
        connection.execute("UPDATE trio_sagents_claims SET node_id = %s WHERE conversation_id = %s", (node_id, conversation_id))
        return None


def release(connection: Connection, conversation_ids: Sequence[str], node_id: str) -> None:
    """End the claims of a node on conversations."""
    connection.execute(
        "DELETE FROM trio_sagents_claims WHERE conversation_id = ANY(%s) AND node_id = %s", (list(conversation_ids), node_id)
    )


def holders(connection: Connection, conversation_ids: Collection[str]) -> Mapping[str, Claim]:
    """Return who has each of the conversations."""
    rows = connection.execute(
        "SELECT conversation_id, node_id, extract(epoch FROM ends_at - clock_timestamp())::float8 "
        "FROM trio_sagents_claims JOIN trio_sagents_nodes USING (node_id) "
        "WHERE conversation_id = ANY(%s) AND ends_at > clock_timestamp()",
        (list(conversation_ids),),
    ).fetchall()
    return {str(conversation_id): Claim(str(node_id), left) for conversation_id, node_id, left in rows if cast("float", left) > 0}  # type: ignore[arg-type]


# ── mail


def send(connection: Connection, mails: Sequence[Mail], max_box: int) -> tuple[Collection[str], Collection[str]]:
    """Put mails into boxes; return who got nothing, and who got something."""
    refused: set[str] = set()
    told: set[str] = set()
    for recipient in dict.fromkeys(mail.recipient for mail in mails):
        theirs = [(recipient, mail.sender, mail.body) for mail in mails if mail.recipient == recipient]
        waiting = connection.execute(
            "SELECT (SELECT count(*) FROM trio_sagents_mail WHERE recipient = node_id) FROM trio_sagents_nodes "
            "WHERE node_id = %s AND ends_at > clock_timestamp()",
            (recipient,),
        ).fetchone()
        if waiting is None or cast("int", waiting[0]) + len(theirs) > max_box:
            refused.add(recipient)
            continue
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO trio_sagents_mail (recipient, sender, body) VALUES (%s, %s, %s)", theirs)
        told.add(recipient)
    return refused, told


def receive(connection: Connection, node_id: str, done: Sequence[int], limit: int) -> Sequence[Received]:
    """Remove what is done, and return what is left."""
    if done:
        connection.execute("DELETE FROM trio_sagents_mail WHERE number = ANY(%s) AND recipient = %s", (list(done), node_id))
    # By what is left, and never by "a higher number than": a number is drawn before its commit, so a lower one can come later.
    rows = connection.execute(
        "SELECT number, sender, body FROM trio_sagents_mail WHERE recipient = %s ORDER BY number LIMIT %s", (node_id, limit)
    ).fetchall()
    return tuple(Received(cast("int", number), str(sender), str(body)) for number, sender, body in rows)
