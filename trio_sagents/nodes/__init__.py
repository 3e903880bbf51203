"""One node among several: which node runs a conversation's agent, and how the other nodes reach that agent.

A *node* is one `open_sessions` block with a `SessionConfig.cluster`. All nodes of a cluster share one engine, a database. No node talks to
another node directly: what a node has to say to another one is a row in the engine.

The modules, lowest first. Each module imports only modules that come before it in this list:

    _ports     what an engine does: nodes and their leases, claims of conversations, mail between nodes
    _calls     calls of the engine, bounded and checked
    _releases  ending the claims of a node
    _keeper    the lease of this node, and the conversations that it has claimed
"""

from trio_sagents.nodes._keeper import NodeKeeper, new_node_id
from trio_sagents.nodes._ports import Claim, Cluster, Mail, Node, NodeInfo, Received

__all__ = ("Claim", "Cluster", "Mail", "Node", "NodeInfo", "NodeKeeper", "Received", "new_node_id")
