"""The tools of the chat, as plain functions: any user of the library writes them like this."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from trio_sagents import Halt
from trio_sagents.cli._arithmetic import calculate as _calculate
from trio_sagents.cli._notebook import Notebook


def calculate(expression: str) -> str:
    """Do exact arithmetic.

    Args:
        expression: numbers, + - * / // % ** and parentheses, such as "12*(3+4)".
    """
    return _calculate(expression)


def halt(reason: str) -> Halt:
    """Stop at once, and do nothing more until the person has acknowledged it. Only where going on could do harm, or where it is asked for.

    Args:
        reason: what the person has to know.
    """
    return Halt(reason)


def send_money(amount: int, to: str, currency: Literal["EUR", "USD", "GBP"] = "EUR") -> str:
    """Pretend to send money: nothing is paid, it is for trying approvals.

    Args:
        amount: how much, as a whole number; at least 1.
        to: who gets it.
        currency: of the amount.
    """
    if amount < 1:
        raise ValueError("amount must be at least 1")
    return f"sent {amount} {currency} to {to} (pretended: nobody was paid)"


def chat_tools(database: Path) -> Sequence[Callable[..., str | Halt]]:  # type: ignore[explicit-any]  # their parameters differ
    """Return the tools of a chat.

    Args:
        database: the SQLite file in which notes are kept.
    """
    notebook = Notebook(database)
    return (calculate, notebook.remember, notebook.recall, halt)
