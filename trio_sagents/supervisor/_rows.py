"""Rows of the transcript as middleware wants them shown. Host code: it runs inside a commit, so it is contained here."""

import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, get_args

import attrs

from trio_sagents.data.json import check_text, plain_json
from trio_sagents.data.messages import Role, ToolStatus
from trio_sagents.data.records import DisplayMessage

log: Final = logging.getLogger("trio_sagents")
RowTransform = Callable[[DisplayMessage], DisplayMessage | None]
_ROLES: Final = frozenset(get_args(Role))
_STATUSES: Final = frozenset(get_args(ToolStatus))


def transformed(
    rows: Sequence[DisplayMessage], transforms: Sequence[tuple[str, RowTransform]], conversation_id: str = ""
) -> Sequence[DisplayMessage]:
    """Return the rows as middleware wants them shown. If a transform fails, its row is hidden: what it was to hide is not shown."""
    kept: list[DisplayMessage] = []
    for row in rows:
        shown: DisplayMessage | None = row
        for middleware_id, transform in transforms:
            if shown is None:
                break
            try:
                shown = transform(shown)
                if shown is not None:
                    check_row(shown, row.row_id)
            except Exception:  # a row is made in the middle of a commit, which it must not undo
                message = "the middleware %r failed in transform_row, in conversation %r; the row %r of the transcript is hidden"
                log.exception(message, middleware_id, conversation_id, row.row_id)
                shown = attrs.evolve(row, content_type="notification", content={"text": "(this cannot be shown)"})
        if shown is not None:
            kept.append(shown)
    return kept


def check_row(shown: object, row_id: str) -> None:
    """Raise TypeError or ValueError for what no store takes as a row: the commit that the row belongs to must not fail for it."""
    if not isinstance(shown, DisplayMessage) or shown.row_id != row_id:
        raise TypeError("transform_row must return the row, a changed copy with the same row_id, or None")
    if shown.role not in _ROLES or shown.status not in _STATUSES:
        raise ValueError(f"a row must have a known role and status, not {shown.role!r} and {shown.status!r}")
    if not isinstance(shown.content, Mapping):
        raise TypeError(f"the content of a row must be a JSON object, not {type(shown.content).__name__}")
    plain_json(shown.content, "content")
    if shown.turn_id is not None:
        check_text(shown.turn_id, "turn_id")
    for name, text in (("content_type", shown.content_type), ("message_id", shown.message_id)):
        if not isinstance(text, str) or not check_text(text, name):
            raise ValueError(f"the {name} of a row must be a text that is not empty, not {text!r}")
    if not isinstance(shown.created_at, datetime.datetime) or shown.created_at.tzinfo is None:
        raise ValueError(f"created_at of a row must have a time zone, not {shown.created_at!r}")
