"""What all middleware that comes with the library has in common: an id that the host may choose."""

import attrs

from trio_sagents.agent import Middleware
from trio_sagents.data.ids import check_id
from trio_sagents.data.json import Opaque


def checked_id(value: str | None) -> str | None:
    """Return the id of a middleware; None is the default.

    Raises:
        TypeError: the id is not a str.
        ValueError: the text cannot be an id.
    """
    return None if value is None else check_id("id", value)


def _check_id(_middleware: object, _field: "attrs.Attribute[Opaque]", value: str | None) -> None:
    checked_id(value)


@attrs.frozen(eq=False)
class BuiltIn(Middleware):
    """A middleware of the library."""

    id: str | None = attrs.field(default=None, kw_only=True, repr=False, validator=_check_id)
    """The id of the middleware (`middleware_id`); None is the name of the class. Two of a class in one agent need different ids."""

    @property
    def middleware_id(self) -> str:
        """The id that was given; else the name of the class."""
        return type(self).__name__ if self.id is None else self.id
