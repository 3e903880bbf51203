"""Logging what host code raised: each exception once, with its traceback.

The code that first catches an exception of host code logs it there, before it becomes another error, a text for the model, or nothing at
all. An error of the library's own may pass several such places, so it carries a mark (`SagentsError.is_logged`).
"""

import logging
from typing import Final, TypeVar

from trio_sagents._trio.groups import leaves
from trio_sagents.exceptions import SagentsError

log: Final = logging.getLogger("trio_sagents")
E = TypeVar("E", bound=SagentsError)


def log_failure(level: int, error: BaseException, message: str, *args: object) -> None:
    """Log an exception with its traceback, unless it consists only of errors that were logged before.

    Args:
        level: of the record: ERROR, or WARNING if a tool raised.
        error: what was raised; may be a group.
        message: with places for `args`. It names the conversation, and must not contain the text of `error`.
        args: ids and names; no arguments of calls, and no content of messages.
    """
    raised = leaves(error)
    if all(isinstance(leaf, SagentsError) and leaf.is_logged for leaf in raised):
        return
    log.log(level, message, *args, exc_info=error)
    for leaf in raised:
        if isinstance(leaf, SagentsError):
            leaf.is_logged = True


def logged(made: E, cause: BaseException, message: str, *args: object) -> E:
    """Log `cause` as an ERROR, and return the error that is made of it: raise that `from cause`."""
    log_failure(logging.ERROR, cause, message, *args)
    made.is_logged = True
    return made
