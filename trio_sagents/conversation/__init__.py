"""The rules of a conversation, as plain functions on plain values.

Everything that can be decided about a conversation is decided here: which messages it accepts, what a turn commits, what a
decision leads to, how a turn that was cut is closed, and when a conversation waits for people. A rule is a function from the
committed state and an input to a `Step` (what to commit, with the rows and the events that follow from it) or to a refusal.

No module of this package imports Trio, reads a clock, writes a log or calls code of the host. The time and new ids are arguments.
So each rule can be read and tested by itself, and whoever does not run the agent (another node, a fork, a simulator) can use it.
The supervisor's journal is the only caller that applies a step: it commits the step first, and then changes the state and
publishes.

The modules, lowest first; each imports only earlier ones:

    limits        sizes of stored records; how a text is cut so that it fits
    ids           which ids of messages and calls are in use
    history       what a history is: open calls, cut turns, who finished
    failures      why a turn failed, as it is stored and shown
    validity      what a history must be, or it is refused
    decided       a call as people decided it: whether it runs, and with which arguments
    rows          the transcript: how a message looks to people
    checkpoints   the window of the history that is kept in memory, and when it moves
    unfinished    the mark of a conversation that has work left
    state         what is committed; `Step`, and how a step is applied
    codec         stored records <-> state, strictly
    pending       what is submitted and not committed yet
    status        the table of statuses, executed
    outcomes      how a turn ended, as far as its history tells
    expansions    results of tools that bring messages into the turn
    expiry        when a call that nobody decides is rejected
    results       the results of calls: messages, rows and events
    closing       the closing of open calls, for all five causes
    decisions     what people decide: decide, expire, dismiss, supersede
    messages_in   may a message be accepted, and what follows
    turn_steps    what a turn commits: taken messages, answers, results, an interrupt, the last answer, the closing of a cut turn
"""
