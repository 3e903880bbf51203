"""Where this code is running: inside Trio, inside another event loop, or in none."""

import sys

import trio

PAGE = "docs/how-to/other-event-loops.md"
"""The page about programs that do not run on Trio alone."""
ASYNCIO_PAGE = "docs/how-to/asyncio.md"
"""The page about applications that run on asyncio."""


def require_trio(what: str) -> None:
    """Raise RuntimeError unless a task of Trio is running; the message says what is running instead, and what to do.

    Args:
        what: what needs Trio, as the subject of the message.
    """
    if trio.lowlevel.in_trio_task():
        return
    if _is_asyncio_running():
        raise RuntimeError(
            f"{what} needs Trio, and this is a task of asyncio; use trio_sagents.asyncio.open_sessions, which runs Trio in this loop, or "
            f"run the program with trio.run(main) (see {ASYNCIO_PAGE})"
        )
    raise RuntimeError(f"{what} needs Trio, and no event loop is running here; call it from an async function that trio.run(main) runs")


def require_run(token: trio.lowlevel.TrioToken, what: str) -> None:
    """Raise RuntimeError unless the run of Trio that `token` belongs to is running here; the message says what to do.

    Args:
        token: of the run in which `what` was made.
        what: what belongs to that run, as the subject of the message.
    """
    try:
        here = trio.lowlevel.current_trio_token()
    except RuntimeError:
        pass
    else:
        if here is token:
            return
        raise RuntimeError(
            f"{what} belong to another run of Trio than the one that is running here; each trio.run needs an open_sessions block of its own"
        )
    place = "a task of asyncio" if _is_asyncio_running() else "a thread in which Trio is not running"
    raise RuntimeError(
        f"{what} were used in {place}; use them in the run of Trio that opened them: from another thread, call "
        f"trio.from_thread.run(function, trio_token=token) (see {PAGE})"
    )


def _is_asyncio_running() -> bool:
    """Return whether a task of asyncio is running in this thread. Nothing is imported for that."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
