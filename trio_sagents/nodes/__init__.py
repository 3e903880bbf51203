"""One node among several: which node runs a conversation's agent, and how the other nodes reach that agent.

A *node* is one `open_sessions` block with a `SessionConfig.cluster`. All nodes of a cluster share one engine, a database. No node talks to
another node directly: what a node has to say to another one is a row in the engine.

The modules, lowest first. Each module imports only modules that come before it in this list:

    _ports         what an engine does: nodes and their leases, claims of conversations, mail between nodes
    _calls         calls of the engine, bounded and checked
    _releases      ending the claims of a node
    _keeper        the lease of this node, and the conversations that it has claimed
    _wire          values as JSON, strictly
    _letters       what nodes say to each other
    _links         the numbered mails between two nodes
    _post_office   sends and receives the mail of a node, and keeps the calls that wait for an answer
    _present       the present of an agent on another node, folded from its events
    _relay         events of the agents here, for other nodes
    _desk          calls of other nodes, carried out by the agents here
    _mirror        the agent of a conversation on another node, as this node sees it
    _bus           a bus between the nodes, for presence
    _neighbours    all that a node has to do with the other nodes
"""

from trio_sagents.nodes._bus import NodeBus
from trio_sagents.nodes._keeper import NodeKeeper, new_node_id
from trio_sagents.nodes._mirror import keyed_row
from trio_sagents.nodes._neighbours import Neighbours, open_neighbours
from trio_sagents.nodes._ports import Claim, Cluster, Mail, Node, NodeInfo, Received

__all__ = (
    "Claim",
    "Cluster",
    "Mail",
    "Neighbours",
    "Node",
    "NodeBus",
    "NodeInfo",
    "NodeKeeper",
    "Received",
    "keyed_row",
    "new_node_id",
    "open_neighbours",
)
