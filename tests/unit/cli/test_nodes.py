"""`trio-sagents nodes PLACE`."""

import datetime
from pathlib import Path

import pytest
import trio

from trio_sagents import SqliteCluster, SqliteStore
from trio_sagents.cli import main
from trio_sagents.cli._nodes import duration, table_of
from trio_sagents.nodes import Node, NodeInfo

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def info(name: str, left: float, *, is_draining: bool = False, conversations: int = 0, age: float = 30.0, node_id: str = "") -> NodeInfo:
    """Return a node, as the engine knows it."""
    return NodeInfo(
        Node(node_id or f"id-{name}", name, "0.1.0", 1), is_draining, NOW - datetime.timedelta(seconds=age), left, conversations
    )


def test_table_of_nodes() -> None:
    """Each node has a row; the last lines count them, and say what a dead one means."""
    nodes = [
        info("web-1", 25.0, conversations=12, age=7200),
        info("w2\n", 3.4, node_id="id-2", is_draining=True, conversations=1),
        info("w3", -90.0),
    ]

    assert table_of(nodes, NOW).splitlines() == [
        "NAME   STATE     CONVERSATIONS  AGE   LEASE            LIBRARY  STATE VERSION  ID",
        "web-1  live      12             2 h   25 s left        0.1.0    1              id-web-1",
        "w2?    draining  1              30 s  3 s left         0.1.0    1              id-2",
        "w3     dead      0              30 s  ended 2 min ago  0.1.0    1              id-w3",
        "3 nodes: 1 live, 1 draining, 1 dead; 13 conversations.",
        "A dead node did not renew its lease: other nodes take its conversations when somebody asks for them.",
    ]


def test_table_of_nothing() -> None:
    """A cluster without nodes is said to be one."""
    assert "No node has joined" in table_of([], NOW)


@pytest.mark.parametrize(("seconds", "text"), [(-3.0, "0 s"), (59.0, "59 s"), (60.0, "1 min"), (7200.0, "2 h"), (200_000.0, "2 d")])
def test_duration(seconds: float, text: str) -> None:
    """A duration is told in its largest unit."""
    assert text == duration(seconds)


def test_nodes_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The nodes of a file are shown."""
    path = tmp_path / "nodes.db"

    async def join() -> None:
        cluster = SqliteCluster(path)
        async with cluster.open():
            await cluster.join(Node("a", "web-1", "0.1.0", 1), 3600.0)
            await cluster.claim("c", "a")

    trio.run(join)

    assert 0 == main(["nodes", str(path)])
    assert "1 node: 1 live; 1 conversation." in capsys.readouterr().out


def test_nodes_when_there_is_no_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there, or is another one, is left as it is, and the error says what to do."""
    path = tmp_path / "chat.db"

    async def make() -> None:
        async with SqliteStore(path).open():
            pass

    trio.run(make)
    before = path.read_bytes()
    (tmp_path / "text").write_text("no database")

    for place, words in ((path, "not that of the store"), (tmp_path / "text", "has no cluster"), (tmp_path / "absent", "no such file")):
        assert 2 == main(["nodes", str(place)])
        assert words in capsys.readouterr().err
    assert before == path.read_bytes()
    assert not (tmp_path / "absent").exists()
