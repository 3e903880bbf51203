"""Events for viewers, and presence. Nothing here knows what an agent does.

What a slow viewer gets is decided in `_feed` and `_subscription`: the agent never waits for a viewer, and a viewer who falls behind the
bounded log gets a `Gap` or a `Snapshot`.

The modules, lowest first. Each module imports only modules that come before it in this list:

    _feed            the events of one agent on one channel, as a bounded log
    _flusher         wakes the readers of streamed text, at most once in an interval
    _backlog         the untaken events of agents that have ended
    _subscription    one subscriber's place in the events of one conversation
    _announcements   how the readers of a subscriber wait
    _subscriber      the mailbox of one task of the host
    _page_present    what a page shows beside the transcript, folded from events
    _page_view       what a page shows, and when the history has to be read again
    _pubsub          the port for a bus, and the bus inside one process
    _presence_wire   the messages of presences on a bus
    _differences     what one presence tells the others of its entries
    _peers           what is known about the other presences
    _exchange        how the presences on a bus learn each other's entries
    _presence        who is present where
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
