"""Types that JSON has no value for, and the text that stands for each: dates, decimals, ids, bytes, paths.

A parameter of such a type is read from its text, and a returned value is shown as its text. Both directions are in one table,
so what one tool returns can be given to another tool.
"""

import base64
import binascii
import datetime
import decimal
import pathlib
import re
import uuid
from collections.abc import Callable
from typing import Final

import attrs

from trio_sagents.data.json import JSON, Opaque

MAX_DECIMAL: Final = 400
"""Characters that the text of a decimal number may have."""
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_DURATION: Final = re.compile(
    r"(?P<sign>-?)P(?=[0-9T])"
    r"((?P<years>[0-9]{1,4})Y)?((?P<months>[0-9]{1,6})M)?((?P<weeks>[0-9]{1,6})W)?((?P<days>[0-9]{1,9})D)?"
    r"(T(?=[0-9])((?P<hours>[0-9]{1,8})H)?((?P<minutes>[0-9]{1,8})M)?((?P<seconds>[0-9]{1,10}([.,][0-9]{1,9})?)S)?)?"
)
_DAYS: Final = {"years": 365, "months": 30, "weeks": 7, "days": 1}
"""How many days a unit has. For years and months it is a convention, the one that Pydantic has, too."""


@attrs.frozen(eq=False)
class TextForm:
    """The text that stands for the values of one class."""

    schema: JSON
    words: str
    """How refusals call it, with an example."""
    read: Callable[[str], object]
    """The value of a text; ValueError or ArithmeticError if the text stands for none."""
    write: Callable[[Opaque], str]
    """The text of a value."""
    kinds: frozenset[str] = frozenset({"string"})
    """The kinds of JSON value that are read: with "integer" and "number", the text of a JSON number is read, too."""


def _read_datetime(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.upper())


def _read_time(text: str) -> datetime.time:
    return datetime.time.fromisoformat(text.upper())


def _read_duration(text: str) -> datetime.timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(text)
    days = sum(int(found[unit] or 0) * length for unit, length in _DAYS.items())
    seconds = decimal.Decimal((found["seconds"] or "0").replace(",", "."))
    microseconds = int(seconds * 1_000_000)
    length = datetime.timedelta(days, hours=int(found["hours"] or 0), minutes=int(found["minutes"] or 0), microseconds=microseconds)
    return -length if found["sign"] else length


def _write_duration(value: datetime.timedelta) -> str:
    sign, value = ("-", -value) if value < datetime.timedelta() else ("", value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{value.microseconds:06}".rstrip("0") if value.microseconds else ""
    units = (hours and f"{hours}H", minutes and f"{minutes}M", (seconds or fraction) and f"{seconds}{fraction}S")
    clock = "".join(unit for unit in units if unit)
    days = f"{value.days}D" if value.days or not clock else ""
    return f"{sign}P{days}T{clock}" if clock else f"{sign}P{days}"


def _read_decimal(text: str) -> decimal.Decimal:
    if len(text) > MAX_DECIMAL or _DECIMAL.fullmatch(text) is None:
        raise ValueError(text)
    return decimal.Decimal(text)


def _read_bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError(text) from exc


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _text(**more: str) -> JSON:
    return {"type": "string", **more}


TEXT_FORMS: Final[dict[type, TextForm]] = {
    datetime.datetime: TextForm(
        _text(format="date-time"), 'a date and time such as "2026-01-31T09:30:00Z"', _read_datetime, datetime.datetime.isoformat
    ),
    datetime.date: TextForm(_text(format="date"), 'a date such as "2026-01-31"', datetime.date.fromisoformat, datetime.date.isoformat),
    datetime.time: TextForm(_text(format="time"), 'a time such as "09:30:00"', _read_time, datetime.time.isoformat),
    datetime.timedelta: TextForm(_text(format="duration"), 'a duration such as "P1DT2H30M" or "PT90S"', _read_duration, _write_duration),
    uuid.UUID: TextForm(_text(format="uuid"), 'a UUID such as "12345678-1234-5678-1234-567812345678"', uuid.UUID, uuid.UUID.__str__),
    decimal.Decimal: TextForm(
        {"anyOf": [_text(format="decimal"), {"type": "number"}]},
        'a decimal number such as "20.00"',
        _read_decimal,
        decimal.Decimal.__str__,
        frozenset({"string", "integer", "number"}),
    ),
    bytes: TextForm(_text(contentEncoding="base64"), "bytes in base64", _read_bytes, _write_bytes),
}
"""By class. `datetime` comes before `date`, from which it inherits."""


def form_of(cls: type) -> TextForm | None:
    """Return the text form of a class that can be asked for, or None."""
    if issubclass(cls, pathlib.PurePath):
        return TextForm(_text(format="path"), "a path", cls, str)
    return TEXT_FORMS.get(cls)


def written(value: object) -> str | None:
    """Return the text of a value whose class, or a class above it, has a text form; None for any other."""
    match value:
        case pathlib.PurePath():
            return str(value)
        case bytearray() | memoryview():
            return _write_bytes(bytes(value))
        case _:
            return next((form.write(value) for cls, form in TEXT_FORMS.items() if isinstance(value, cls)), None)
