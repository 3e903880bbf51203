"""Events out: what viewers get of an agent, and who is there. Nothing here knows what an agent does.

The modules, lowest first. Each module imports only modules that come before it in this list:

    _feed            the events of one agent on one channel, as a short log
    _flusher         wakes the readers of streamed text, at most once in an interval
    _backlog         what a subscription keeps of agents that have ended
    _subscription    one subscriber's place in the events of one conversation
    _announcements   how the readers of a subscriber wait
    _subscriber      the mailbox of one task of the host
    _page_present    what a page shows beside the transcript, folded from events
    _page_view       what a page shows, and when the history has to be read again
    _pubsub          the port for a bus, and the bus inside one process
    _presence_wire   what presences say to each other on a bus
    _differences     what one presence tells the others of its entries
    _peers           what is known of the other presences
    _exchange        how the presences on a bus learn each other's entries
    _presence        who is where
"""

from trio_sagents.broadcast._feed import Feed
from trio_sagents.broadcast._flusher import Flusher
from trio_sagents.broadcast._page_present import PagePart, PagePresent
from trio_sagents.broadcast._page_view import PageChange, PageView
from trio_sagents.broadcast._presence import Presence, PresenceDiff, Tracked
from trio_sagents.broadcast._pubsub import LocalPubSub, PubSub
from trio_sagents.broadcast._subscriber import Subscriber
from trio_sagents.broadcast._subscription import Mailbox, Subscription
from trio_sagents.conversation.rows import rows_of

__all__ = (
    "Feed",
    "LocalPubSub",
    "Flusher",
    "Mailbox",
    "PageChange",
    "PagePart",
    "PageView",
    "Presence",
    "PresenceDiff",
    "PagePresent",
    "PubSub",
    "Subscriber",
    "Subscription",
    "Tracked",
    "rows_of",
)
