"""Events out: feeds, subscribers, snapshots and cursors; presence beside them."""

from trio_sagents.broadcast._feed import Feed
from trio_sagents.broadcast._presence import Presence, PresenceDiff, Tracked
from trio_sagents.broadcast._pubsub import LocalPubSub, PubSub
from trio_sagents.broadcast._subscriber import Subscriber
from trio_sagents.broadcast._subscription import Subscription

__all__ = ("Feed", "LocalPubSub", "Presence", "PresenceDiff", "PubSub", "Subscriber", "Subscription", "Tracked")
