"""Bugs in what viewers are told, and in who is there."""

from typing import Final

from tests.mutants._planting import Mutant

BROADCAST: Final = (
    Mutant(
        "a subscription is kept when its admission is cancelled",
        "broadcast/_subscriber.py",
        "        except BaseException:\n            self.drop(subscription)\n            raise\n",
        "        except BaseException:\n            raise\n",
        ("mutants/test_holes.py::test_subscribe_that_is_cancelled_while_the_authorizer_is_asked",),
    ),
    Mutant(
        "a cancelled start keeps its subscribers",
        "sessions/_sessions.py",
        "                subscriber.drop(subscription)\n",
        "                pass\n",
        ("flow/test_starting.py::test_start_when_the_caller_is_cancelled_withdraws_its_subscribers",),
    ),
    Mutant(
        "sending to a subscriber may block",
        "broadcast/_subscriber.py",
        "trio.open_memory_channel[Subscription](math.inf)",
        "trio.open_memory_channel[Subscription](1)",
        ("flow/test_broadcast.py::test_two_conversations_in_one_mailbox",),
    ),
    Mutant(
        "a buffer of events has no bound",
        "broadcast/_subscription.py",
        "        if events is None or len(events) > self.most_events:\n",
        "        if events is None:\n",
        ("flow/test_broadcast.py::test_slow_subscriber_gets_a_gap_and_the_present",),
    ),
    Mutant(
        "a buffer of text has no bound",
        "broadcast/_subscription.py",
        "            if text_size(events) > self.most_text:\n",
        "            if False:\n",
        ("flow/test_broadcast.py::test_slow_subscriber_by_text",),
    ),
    Mutant(
        "a gap is not reported",
        "broadcast/_subscription.py",
        "if untaken is None and self._seen < last else ()",
        "if False else ()",
        ("flow/test_broadcast.py::test_slow_subscriber_gets_a_gap_and_the_present",),
    ),
    Mutant(
        "the snapshot comes after the events",
        "broadcast/_subscription.py",
        "            batch = events if first is None else (first, *events)\n",
        "            batch = events if first is None else (*events, first)\n",
        (
            "flow/test_starting.py::test_initial_subscribers_see_the_snapshot_first",
            "flow/test_broadcast.py::test_events_of_a_turn_in_order",
        ),
    ),
    Mutant(
        "there is no snapshot on enrolment",
        "broadcast/_subscription.py",
        "            self._first = feed.present(replaces=place)\n",
        "            feed.present(replaces=place)\n",
        ("flow/test_starting.py::test_initial_subscribers_see_the_snapshot_first",),
    ),
    Mutant(
        "a cursor of another agent is followed",
        "broadcast/_subscription.py",
        "place is not None and place.incarnation == feed.incarnation and",
        "place is not None and",
        ("flow/test_broadcast.py::test_cursor_of_another_incarnation",),
    ),
    Mutant(
        "a cursor from the future is followed",
        "broadcast/_subscription.py",
        " and place.seq <= feed.seq:\n",
        ":\n",
        ("flow/test_broadcast.py::test_cursor_from_the_future_of_this_incarnation",),
    ),
    Mutant(
        "the last word is lost in a gap",
        "broadcast/_subscription.py",
        "shutdown_in(feed.since(feed.seq - 1) or ()) if ended else ()",
        "()",
        ("flow/test_broadcast.py::test_gap_with_a_shutdown_in_it",),
    ),
    Mutant(
        "the last word is not said",
        "supervisor/_live.py",
        "            say_last_word(self, self._feeds, reason)\n",
        "            pass\n",
        ("flow/test_stopping.py::test_stop_tells_the_subscribers_once",),
    ),
    Mutant(
        "every tenth event is dropped",
        "broadcast/_feed.py",
        "        seq = self.seq = self.seq + 1\n",
        "        seq = self.seq = self.seq + 1\n        if not seq % 10:\n            return\n",
        ("flow/test_broadcast.py::test_cursor_at_every_place", "flow/test_broadcast.py::test_events_of_a_turn_in_order"),
    ),
    Mutant(
        "joined deltas have the number of the first",
        "broadcast/_feed.py",
        "attrs.evolve(run[0], seq=run[-1].seq, event",
        "attrs.evolve(run[0], event",
        ("flow/test_broadcast.py::test_coalescing_of_an_untaken_batch",),
    ),
    Mutant(
        "deltas are joined over a place that was handed out",
        "broadcast/_feed.py",
        "            if log and log[-1].seq > self._sealed:\n",
        "            if log:\n",
        ("flow/test_broadcast.py::test_cursor_at_every_place", "flow/test_broadcast.py::test_cursor_replay"),
    ),
    Mutant(
        "a closed subscription stays in the table",
        "broadcast/_subscriber.py",
        "        self._switchboard.withdraw(subscription)\n",
        "",
        ("flow/test_broadcast.py::test_a_subscriber_is_withdrawn_when_its_block_ends",),
    ),
    Mutant(
        "an old subscription takes the place of a new one away",
        "broadcast/_subscriber.py",
        "        if self._subscriptions.get(key) is subscription:\n            del",
        "        if key in self._subscriptions:\n            del",
        (
            "flow/test_starting.py::test_start_when_the_caller_is_cancelled_withdraws_its_subscribers",
            "flow/test_broadcast.py::test_resubscribe_while_waiting_to_be_read",
        ),  # test ids
    ),
    Mutant(
        "events of a subscription that was ended are read",
        "broadcast/_subscriber.py",
        "            self._ready = deque(kept)\n",
        "",
        ("flow/test_broadcast.py::test_unsubscribe_ends_it_at_once",),
    ),
    Mutant(
        "debug events are on the main channel",
        "supervisor/_live.py",
        "            self.feed(channel).publish(event)\n",
        '            self.feed("main").publish(event)\n',
        ("flow/test_broadcast.py::test_debug_channel",),
    ),
    Mutant(
        "who leaves stays present",
        "broadcast/_presence.py",
        "            yield\n        finally:\n            tracked.leave()\n",
        "            yield\n        finally:\n            pass\n",
        ("unit/test_presence.py::test_track_when_cancelled", "unit/test_presence.py::test_track_when_open"),
    ),
    Mutant(
        "an old topic is dropped in place of a new one",
        "broadcast/_presence.py",
        " and self._topics.get(topic.name) is topic:\n",
        ":\n",
        ("unit/test_presence_counts.py::test_watch_count_when_a_callback_starts_the_topic_anew",),
    ),
    Mutant(
        "an entry that left before it was seen is told as gone",
        "broadcast/_presence.py",
        "        if tracked in self.joined:\n            del self.joined[tracked]\n        else:\n",
        "        if True:\n            self.joined.pop(tracked, None)\n",
        ("unit/test_presence.py::test_changes_when_nobody_looks",),
    ),
)
