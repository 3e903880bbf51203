"""Bugs in clusters: whose lease counts, how long it is trusted, and what becomes of claims."""

from typing import Final

from tests.support.planting import MODULE, PlantedBug

_KIT: Final = "contracts/clusters/test_clusters.py::"
_KEEPER: Final = "unit/nodes/test_keeper.py::"
_MODEL: Final = "search/test_clusters.py::"

CLUSTER: Final = (
    PlantedBug(
        "the lease of the node that has a claim is not compared, in memory",
        "cluster/memory.py",
        "MemoryCluster.claim",
        "            if remaining > 0:\n",
        "            if False:\n",
        (f"{_KIT}TestMemory::test_claim_when_it_is_free", f"{_MODEL}test_memory_against_the_model"),
    ),
    PlantedBug(
        "the lease of the node that has a claim is not compared, in SQLite",
        "cluster/sqlite_nodes.py",
        MODULE,
        "WHERE nodes.node_id = claims.node_id AND ends_at > :now)",
        "WHERE nodes.node_id = claims.node_id AND ends_at > :now + 1e9)",
        (f"{_KIT}TestSqlite::test_claim_when_it_is_free",),
    ),
    PlantedBug(
        "a node whose own lease has ended gets a claim",
        "cluster/sqlite_nodes.py",
        "SqliteCluster.claim.change",
        "            if own is None or own[0] <= now:\n",
        "            if own is None:\n",
        (f"{_KIT}TestSqlite::test_claim_by_a_node_without_a_lease",),
    ),
    PlantedBug(
        "the renewal of a node that was swept away says that it is there",
        "cluster/memory.py",
        "MemoryCluster.renew",
        "        return member is not None\n",
        "        return True\n",
        (f"{_KIT}TestMemory::test_renew_when_it_was_swept_away", f"{_MODEL}test_memory_against_the_model"),
    ),
    PlantedBug(
        "a release ends another node's claim",
        "cluster/sqlite_nodes.py",
        "SqliteCluster.release.change",
        "WHERE conversation_id = ? AND node_id = ?",
        "WHERE conversation_id = ? OR node_id = ?",
        (f"{_KIT}TestSqlite::test_release_when_another_has_it",),
    ),
    PlantedBug(
        "a release in memory ends another node's claim",
        "cluster/memory.py",
        "MemoryCluster.release",
        "            if member is not None and self._claims.get(conversation_id) is member:\n",
        "            if member is not None and (member := self._claims.get(conversation_id)):\n",
        (f"{_KIT}TestMemory::test_release_when_another_has_it", f"{_MODEL}test_memory_against_the_model"),
    ),
    PlantedBug(
        "mail is received by its number",
        "cluster/sqlite_nodes.py",
        "SqliteCluster.receive.change",
        "WHERE number = ? AND recipient = ?",
        "WHERE number <= ? AND recipient = ?",
        (f"{_KIT}TestSqlite::test_receive_when_it_is_done_out_of_order",),
    ),
    PlantedBug(
        "the lease counts from the answer of a renewal on",
        "nodes/_keeper.py",
        "NodeKeeper._trust",
        "        self._until = began + TRUSTED * self.ttl",
        "        self._until = trio.current_time() + 1.5 * self.ttl",
        (f"{_KEEPER}test_renewals_that_fail_for_good",),
    ),
    PlantedBug(
        "agents are held still for too long",
        "nodes/_keeper.py",
        "NodeKeeper.hold",
        "        return (1 - TRUSTED) * self.ttl\n",
        "        return self.ttl\n",
        (f"{_KEEPER}test_renewals_that_fail_for_good", f"{_KEEPER}test_agents_are_held_for_a_bounded_time"),
    ),
    PlantedBug(
        "a late renewal keeps what others took",
        "nodes/_keeper.py",
        "NodeKeeper._renew",
        "            self._lapses += 1\n            await self._compare()\n",
        "            self._lapses += 1\n",
        (f"{_KEEPER}test_late_renewal_keeps_what_nobody_took",),
    ),
    PlantedBug(
        "an answer to a claim is believed though the lease lapsed meanwhile",
        "nodes/_keeper.py",
        "NodeKeeper._claim",
        "            if claim is not None or lapses == self._lapses:\n",
        "            if True:\n",
        (f"{_KEEPER}test_acquire_during_a_lapse",),
    ),
    PlantedBug(
        "a node that the engine has forgotten keeps its agents",
        "nodes/_keeper.py",
        "NodeKeeper._forgotten",
        '        self._fence(tuple(self._held.values()), "the cluster has forgotten this node")\n',
        "        pass\n",
        (f"{_KEEPER}test_forgotten_node_joins_again",),
    ),
    PlantedBug(
        "a release that failed is not tried again",
        "nodes/_releases.py",
        "Releases.run",
        "            if not is_done:\n",
        "            if False:\n",
        (f"{_KEEPER}test_release_that_fails",),
    ),
    PlantedBug(
        "a late release undoes the next claim",
        "nodes/_releases.py",
        "Releases.wait_released",
        "        while (sending := self._sending) is not None and conversation_id in sending.ids:\n",
        "        while (sending := self._sending) is not None and False:\n",
        (f"{_KEEPER}test_release_that_is_late_does_not_undo_the_next_claim",),
    ),
)
