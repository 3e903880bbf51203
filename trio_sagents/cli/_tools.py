"""The tools of the chat, as plain functions: every user of the library writes tools like these."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from trio_sagents import Halt
from trio_sagents.cli._arithmetic import calculate as _calculate
from trio_sagents.cli._notebook import Notebook


def calculate(expression: str) -> str:
    """Do exact arithmetic.

    Args:
        expression: Numbers, + - * / // % ** and parentheses, such as "12*(3+4)".
    """
    return _calculate(expression)


def halt(reason: str) -> Halt:
    """Stop at once, and do nothing more until the person has acknowledged it.

    Use this only if continuing could do harm, or if the person asks for it.

    Args:
        reason: What the person has to know.
    """
    return Halt(reason)


def send_money(amount: int, to: str, currency: Literal["EUR", "USD", "GBP"] = "EUR") -> str:
    """Pretend to send money, to try approvals; nothing is paid.

    Args:
        amount: How much money, as a whole number; at least 1.
        to: Who gets the money.
        currency: The currency of the amount.
    """
    if amount < 1:
        raise ValueError("amount must be at least 1")
    return f"sent {amount} {currency} to {to} (pretended: nobody was paid)"


def chat_tools(database: Path) -> Sequence[Callable[..., str | Halt]]:  # type: ignore[explicit-any]  # their parameters differ
    """Return the tools of a chat.

    Args:
        database: the SQLite file in which notes are stored.
    """
    notebook = Notebook(database)
    return (calculate, notebook.remember, notebook.recall, halt)
