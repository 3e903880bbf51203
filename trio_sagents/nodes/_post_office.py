"""The post office of a node: it sends letters, receives them, and keeps the calls that wait for an answer.

An engine may lose mail, and may deliver it twice. So a call is sent again until its answer is there, and whoever receives a call remembers
what was answered: the same call is never carried out twice. A receiver that finds a hole in the numbers of the mails of a node says so, and
whoever follows events from there asks for them again.

A call ends with `AgentNotRunning` when the node that it was sent to does not have the conversation any more: nobody knows then whether the
call was carried out. So what a caller repeats elsewhere has to be something of which a duplicate is known: it has an id from the beginning.
"""

import functools
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, Protocol

import attrs
import trio

from trio_sagents._trio.failures import log_failure
from trio_sagents._trio.groups import split
from trio_sagents.exceptions import AgentNotRunning, LimitExceeded, RegistryUnavailable, SagentsError, StateError
from trio_sagents.nodes._calls import Engine
from trio_sagents.nodes._letters import (
    WAITS,
    Answer,
    Call,
    HangUp,
    Letter,
    Refusal,
    Reply,
    Request,
    Working,
    decode_letter,
    encode_letter,
)
from trio_sagents.nodes._links import Incoming, Outgoing
from trio_sagents.nodes._ports import Mail, Received
from trio_sagents.nodes._wire import MALFORMED

log: Final = logging.getLogger("trio_sagents")
MAX_CALLS: Final = 10_000
"""Calls of one node that wait for an answer, and calls of others that it works on."""
KEPT_ANSWERS: Final = 4096
"""Answers to the calls of one node that are remembered."""
RESEND: Final = 2.0
"""Seconds after which a call is sent again of which nobody has heard."""
RESEND_WORKING: Final = 10.0
"""Seconds after which a call is sent again that is worked on."""
RETRY: Final = 0.5
"""Seconds until an engine that could not be reached is tried again, at first; then twice as many, up to `RETRY_MOST`."""
RETRY_MOST: Final = 5.0
RECEIVED: Final = 256
"""Mails that are received at once."""
FORGOTTEN: Final = 3600.0
"""Seconds after which a node is forgotten of which nothing was heard."""


class Addressee(Protocol):
    """Who reads the letters that are neither calls nor answers, and carries out calls."""

    async def carry_out(self, sender: str, call: int, request: Request) -> Reply:
        """Carry out a call, and return the answer; what is raised is the answer, too."""
        ...

    def read(self, sender: str, letter: Letter) -> None:
        """Read a notice. Must not raise."""
        ...

    def missed(self, sender: str) -> None:
        """Note that mails of a node are missing."""
        ...

    def renamed(self) -> None:
        """Note that this node has another id now: no other node knows of it."""
        ...

    def unreachable(self, recipient: str) -> None:
        """Note that what was sent to a node did not get there: it has gone, or its box is full."""
        ...


@attrs.define(eq=False)
class PendingCall:
    """A call that waits for its answer."""

    call: int
    recipient: str
    conversation_id: str
    letter: str
    due: float
    """Trio time: when it is sent again."""
    then: "Callable[[Reply], None] | None"
    """Called with the answer, in the step in which it arrives."""
    answered: trio.Event = attrs.field(factory=trio.Event)
    reply: Reply | None = None
    error: Exception | None = None

    def settle(self, reply: Reply | None, error: Exception | None) -> None:
        """Have the caller continue; the first answer counts."""
        if not self.answered.is_set():
            self.reply, self.error = reply, error
            self.answered.set()
            if reply is not None and self.then is not None:
                self.then(reply)


@attrs.define(eq=False)
class _Peer:
    """Another node."""

    outgoing: Outgoing = attrs.field(factory=Outgoing)
    incoming: Incoming = attrs.field(factory=Incoming)
    answers: "OrderedDict[int, str | None]" = attrs.field(factory=OrderedDict)
    """By the number of a call of that node: the letter with the answer, or None while the call is worked on."""
    floor: int = 0
    # Invariant: no call with a number up to this is carried out: it was answered, or is not waited for.
    serving: dict[int, trio.CancelScope] = attrs.field(factory=dict)
    """By the number of a call: the work on it that ends if nobody waits any more."""


@attrs.define(eq=False)
class PostOffice:
    """Sends and receives the mail of one node, until its `run` is cancelled."""

    cluster: Engine
    _own_id: Callable[[], str]
    """Tells under which id this node is known now: another one, if the engine has forgotten the node."""
    _nursery: trio.Nursery
    """The parent of what works on calls."""
    addressee: Addressee | None = None
    node_id: str = ""
    """Of this node, as its mail has it."""
    _peers: dict[str, _Peer] = attrs.field(factory=dict)
    _calls: dict[int, PendingCall] = attrs.field(factory=dict)
    _last_call: int = 0
    _last_number: int = 0
    _working: int = 0
    _something: trio.Event = attrs.field(factory=trio.Event)
    """Set when there is something to send."""
    _sent: trio.Event = attrs.field(factory=trio.Event)
    """Set when everything was sent; another one for each time."""
    _pings: dict[str, None] = attrs.field(factory=dict)
    """The nodes that are to be told how many mails there were."""

    def __attrs_post_init__(self) -> None:
        self.node_id = self._own_id()

    # ── for the parts of the node

    def send(self, recipient: str, letter: Letter) -> bool:
        """Send a letter, without waiting; return False if it cannot be sent, because too much waits.

        Raises:
            TypeError, ValueError: something in it cannot travel.
        """
        return self._send(recipient, encode_letter(letter))

    def _send(self, recipient: str, letter: str) -> bool:
        outgoing = self._peer(recipient).outgoing
        try:
            outgoing.put(letter)
        except LimitExceeded as exc:
            log.warning("node %s: %s; what waited for it is dropped", recipient, exc)
            outgoing.clear()
            self._tell_unreachable(recipient)
            return False
        self._something.set()
        return True

    async def call(self, recipient: str, request: Request, then: "Callable[[Reply], None] | None" = None) -> tuple[int, Reply]:
        """Have another node carry out a request, and return the number of the call, and the answer.

        Raises:
            TypeError, ValueError: something in the request cannot travel; nothing was done.
            LimitExceeded: too many calls wait; nothing was done.
            AgentNotRunning: the node has no such agent; or it has gone, and nobody knows whether the request was carried out.
            Whatever the other node raised.

        Cancellation: the request is carried out, or not.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if len(self._calls) >= MAX_CALLS:
            raise LimitExceeded("calls to other nodes", len(self._calls) + 1, most=MAX_CALLS)
        number = self._last_call + 1
        letter = encode_letter(Call(number, request))
        self._last_call = number
        pending = PendingCall(number, recipient, request.conversation_id, letter, trio.current_time() + RESEND, then)
        self._calls[number] = pending
        self._send(recipient, letter)
        try:
            await pending.answered.wait()
        finally:
            del self._calls[number]
            if not pending.answered.is_set() and isinstance(request, WAITS):
                self.send(recipient, HangUp(number))
        if pending.error is not None:
            raise pending.error
        assert pending.reply is not None
        return number, pending.reply

    def ask(self, function: "Callable[[], Awaitable[object]]") -> None:
        """Run a function in a task of this node's services; it must not raise."""
        self._nursery.start_soon(function, name="a call to another node")

    def new_number(self) -> int:
        """Return a number that was not used before in this node."""
        self._last_number += 1
        return self._last_number

    def pending(self) -> Sequence[PendingCall]:
        """Return the calls that wait for an answer."""
        return tuple(self._calls.values())

    def ping(self, recipients: Iterable[str]) -> None:
        """Tell nodes how many mails there were, so that they find out if the last one is missing."""
        for recipient in recipients:
            self._pings[recipient] = None
        if self._pings:
            self._something.set()

    def _check_id(self) -> None:
        """Begin anew if this node has another id now: what was sent to the old one is lost, and nobody answers it."""
        if self.node_id == (now := self._own_id()):
            return
        self.node_id = now
        for peer in self._peers.values():
            for scope in peer.serving.values():
                scope.cancel()
        self._peers = {}
        for pending in tuple(self._calls.values()):
            pending.settle(None, AgentNotRunning(pending.conversation_id))
        if self.addressee is not None:
            self.addressee.renamed()

    # ── sending

    async def run(self) -> None:
        """Send and receive, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_sender, name="mail to other nodes")
                nursery.start_soon(self._run_resends, name="calls to other nodes")
                await self._run_receiver()
        finally:
            for pending in tuple(self._calls.values()):
                pending.settle(None, AgentNotRunning(pending.conversation_id))

    async def _run_sender(self) -> None:
        while True:
            await self._something.wait()
            self._something = trio.Event()
            self._check_id()
            mails = tuple(self._take())
            if mails:
                refused: Collection[str] = await self._persist(functools.partial(self.cluster.send, mails), "send mail to other nodes")
                for recipient in refused:
                    if (peer := self._peers.get(recipient)) is not None:
                        peer.outgoing.clear()
                    self._tell_unreachable(recipient)
            if any(peer.outgoing for peer in self._peers.values()):
                self._something.set()
            elif not self._something.is_set():
                self._sent.set()
                self._sent = trio.Event()

    async def wait_sent(self) -> None:
        """Return when everything was sent that waits. Cancellation: it is sent all the same, while `run` runs."""
        self._something.set()
        await self._sent.wait()

    def _take(self) -> Iterator[Mail]:
        low = min(self._calls, default=self._last_call + 1)
        pings, self._pings = self._pings, {}
        for recipient, peer in self._peers.items():
            bodies = list(peer.outgoing.take(self.cluster.max_mail, low))
            if not bodies and recipient in pings:
                bodies.append(peer.outgoing.ping(low))
            for body in bodies:
                yield Mail(recipient, self.node_id, body)

    async def _run_resends(self) -> None:
        while True:
            await trio.sleep(RESEND / 4)
            now = trio.current_time()
            for pending in tuple(self._calls.values()):
                if pending.due <= now and not pending.answered.is_set():
                    pending.due = now + RESEND
                    self._send(pending.recipient, pending.letter)
            for node_id, peer in tuple(self._peers.items()):
                if now - peer.incoming.heard_at > FORGOTTEN and not peer.serving and not peer.outgoing:
                    del self._peers[node_id]

    async def _persist(self, call: "Callable[[], Awaitable[Collection[str]]]", what: str) -> Collection[str]:
        """Call the engine until it answers."""
        pause = RETRY
        while True:
            try:
                return await call()
            except RegistryUnavailable as exc:
                log.log(_level(pause), "could not %s, and will try again: %s", what, exc)
            await trio.sleep(pause)
            pause = min(2 * pause, RETRY_MOST)

    # ── receiving

    async def _run_receiver(self) -> None:
        done: Sequence[int] = ()
        pause = RETRY
        while True:
            if self.node_id != self._own_id():
                done = ()
                self._check_id()
            try:
                received = await self.cluster.receive(self.node_id, done, RECEIVED)
                pause = RETRY
                if not received:
                    done = ()
                    await self.cluster.wait(self.node_id)
                    continue
            except RegistryUnavailable as exc:
                log.log(_level(pause), "could not receive mail of other nodes, and will try again: %s", exc)
                await trio.sleep(pause)
                pause = min(2 * pause, RETRY_MOST)
                continue
            # No checkpoint until all mails are read: the next call says that they are done.
            for mail in received:
                self._open(mail)
            done = tuple(mail.number for mail in received)

    def _open(self, mail: Received) -> None:
        peer = self._peer(mail.sender)
        try:
            arrived = peer.incoming.take(mail.body)
            letters = [decode_letter(letter) for letter in arrived.letters]
        except (StateError, *MALFORMED) as exc:
            log.warning("a mail of node %s cannot be read, and is dropped: %s", mail.sender[:100], str(exc)[:300])
            self._tell_missed(mail.sender)
            return
        peer.incoming.heard_at = trio.current_time()
        if arrived.is_hole:
            for pending in self._calls.values():
                if pending.recipient == mail.sender:
                    pending.due = 0.0  # the answer may be among what is missing
            self._tell_missed(mail.sender)
        self._forget(peer, arrived.low)
        for letter in letters:
            self._read(mail.sender, peer, letter)

    def _forget(self, peer: _Peer, low: int) -> None:
        """Forget the answers that are not waited for any more."""
        for number in [number for number, answer in peer.answers.items() if number < low and answer is not None]:
            del peer.answers[number]
        peer.floor = max(peer.floor, low - 1)

    def _read(self, sender: str, peer: _Peer, letter: Letter) -> None:
        match letter:
            case Call(call, request):
                self._serve(sender, peer, call, request)
            case Answer(call, reply):
                self._settle(sender, call, reply, None)
            case Refusal(call, error):
                self._settle(sender, call, None, error)
            case Working(call):
                pending = self._calls.get(call)
                if pending is not None and pending.recipient == sender:
                    pending.due = trio.current_time() + RESEND_WORKING
            case HangUp(call):
                if (scope := peer.serving.get(call)) is not None:
                    scope.cancel()
            case _ if self.addressee is not None:
                self.addressee.read(sender, letter)

    def _settle(self, sender: str, call: int, reply: Reply | None, error: Exception | None) -> None:
        pending = self._calls.get(call)
        if pending is not None and pending.recipient == sender:  # an answer of any other node is not one
            pending.settle(reply, error)

    def _tell_missed(self, sender: str) -> None:
        if self.addressee is not None:
            self.addressee.missed(sender)

    def _tell_unreachable(self, recipient: str) -> None:
        if self.addressee is not None:
            self.addressee.unreachable(recipient)

    def _peer(self, node_id: str) -> _Peer:
        peer = self._peers.get(node_id)
        if peer is None:
            peer = self._peers[node_id] = _Peer()
            peer.incoming.heard_at = trio.current_time()
        return peer

    # ── calls of others

    def _serve(self, sender: str, peer: _Peer, call: int, request: Request) -> None:
        if call in peer.answers:
            answer = peer.answers[call]
            self._send(sender, encode_letter(Working(call)) if answer is None else answer)
            return
        if call <= peer.floor:
            return  # it was answered, and nobody waits for the answer
        if self._working >= MAX_CALLS:
            log.warning("%d calls of other nodes are worked on; a call of node %s waits", self._working, sender)
            return  # it is sent again
        peer.answers[call] = None
        self._working += 1
        self.send(sender, Working(call))
        self._nursery.start_soon(self._carry_out, sender, peer, call, request, name="a call of another node")

    async def _carry_out(self, sender: str, peer: _Peer, call: int, request: Request) -> None:
        answer: str | None = None
        try:
            with trio.CancelScope() as scope:
                if isinstance(request, WAITS):
                    peer.serving[call] = scope
                answer = await self._answer(sender, call, request)
        finally:
            self._working -= 1
            peer.serving.pop(call, None)
            if answer is not None:
                self._keep(peer, call, answer)
                self._send(sender, answer)
            else:
                peer.answers.pop(call, None)

    async def _answer(self, sender: str, call: int, request: Request) -> str:
        """Return the letter with the answer to a call."""
        assert self.addressee is not None
        try:
            return encode_letter(Answer(call, await self.addressee.carry_out(sender, call, request)))
        except BaseException as exc:  # noqa: ASYNC103, BLE001  # the boundary to the agent; what is not an error is raised below
            error, onward = split(exc)
        if onward is not None:
            raise onward
        assert error is not None
        if not isinstance(error, SagentsError):
            log_failure(logging.ERROR, error, "a call of another node failed, in conversation %r", request.conversation_id)
        return encode_letter(Refusal(call, error if isinstance(error, Exception) else SagentsError("internal error")))

    def _keep(self, peer: _Peer, call: int, answer: str) -> None:
        if call <= peer.floor:
            peer.answers.pop(call, None)
            return
        peer.answers[call] = answer
        if len(peer.answers) > KEPT_ANSWERS:
            oldest = next((number for number, kept in peer.answers.items() if kept is not None), None)
            if oldest is not None:
                del peer.answers[oldest]
                peer.floor = max(peer.floor, oldest)


def _level(pause: float) -> int:
    """Return the level of a line in the log: an engine may be away for a moment, and is reported once when it stays away."""
    return logging.WARNING if pause < RETRY_MOST <= 2 * pause else logging.DEBUG
