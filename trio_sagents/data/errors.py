"""Errors as text: for a model to read, and for people to see."""

from trio_sagents.exceptions import SagentsError


def describe(error: BaseException) -> str:
    """Return "Type: message" for a model to read; valid Unicode, whatever the error does when it is asked for its text."""
    try:
        text = str(error)
    except Exception as exc:  # noqa: BLE001  # a host's error may fail in its own __str__
        text = f"(its text could not be had: {type(exc).__name__})"
    return f"{type(error).__name__}: {text}".encode(errors="replace").decode()


def public_text(error: BaseException) -> str:
    """Return what anybody may see of an error: the message of ours, and a general one for any other, which may hold secrets."""
    return str(error) if isinstance(error, SagentsError) else "internal error"
