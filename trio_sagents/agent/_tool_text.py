"""What passes between a model and a tool: the arguments on the way in, the result on the way out.

Both sides are untrusted. Arguments are JSON that has one meaning, or they are refused. A result is cut to a size, and can always
be stored. A result never becomes a failure on its way out: when a tool has returned, its effect has happened, so even if something is
wrong with the value, the model reads that the call worked, and as much of the value as can be shown.
"""

import base64
import binascii
import enum
import inspect
import json
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

import attrs

from trio_sagents.agent._json_forms import Writer, is_unfinished, label_of, named, storable
from trio_sagents.agent._shapes import cut, kind_of
from trio_sagents.data.json import JSON, MAX_DEPTH, JSONValue, Opaque, check_text, plain_json
from trio_sagents.data.messages import FilePart, ImagePart, MediaPart, Message, TextPart, UserMessage

MAX_REFUSAL: Final = 2000
"""How many characters of a refusal the model reads."""
MAX_RETURNED: Final = 1024 * 1024
"""How many characters are kept of the text of a `ToolResult` that is made of something else than text."""


class ArgumentsInvalid(ValueError):  # what happened, as all errors of this library are named
    """The arguments of a tool call cannot be used. The message is for the model: it names each wrong place."""

    def __init__(self, tool: str | None, problems: Sequence[str]) -> None:
        super().__init__(tool, problems)
        self.tool: Final = tool
        """The tool's name; None while only the text was read."""
        self.problems: Final = problems
        """At least one, such as `days[0]: must be an integer, not the string "5"`."""

    def __str__(self) -> str:
        of_tool = "" if self.tool is None else f" of {self.tool!r}"
        return storable(f"The arguments{of_tool} cannot be used: {'; '.join(self.problems)}"[:MAX_REFUSAL])


def _as_text(value: object) -> str:
    return (
        str.__str__(value)  # pyright: ignore[reportArgumentType]
        if issubclass(type(value), str) and not issubclass(type(value), enum.Enum)
        else read_return(value, MAX_RETURNED).text
    )


class _Described(str):
    """The text of a value, on its way into a `ToolResult`."""

    __slots__ = ("media",)
    media: Sequence[MediaPart]


def _as_content(value: object) -> str:
    """Return the text of a value; with the media in it, if there are any."""
    if issubclass(type(value), str) and not issubclass(type(value), enum.Enum):
        return _as_text(value)
    found = read_return(value, MAX_RETURNED, MAX_RETURNED)
    if not found.media:
        return found.text
    text = _Described(found.text)
    text.media = found.media
    return text


def _as_flag(value: object) -> bool:
    try:
        return bool(value)
    except Exception:  # noqa: BLE001  # part of the tool boundary: the tool has had its effect, so a strange flag is not a failure
        return False


def _as_media(value: object) -> tuple[MediaPart, ...]:
    """Return the media as given; `read_return` leaves out what is not an image or a file, and says so."""
    if value is None:
        return ()
    given: Opaque = value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
    try:
        return tuple(given)
    except Exception:  # noqa: BLE001  # part of the tool boundary: the tool has had its effect; `read_return` says that this is not media
        return (value,)  # type: ignore[return-value]  # see above


def _as_messages(value: object) -> "tuple[UserMessage | Message, ...]":
    """Return the messages as given; `read_return` leaves out what cannot be one, and says so."""
    if value is None:
        return ()
    given: Opaque = value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
    try:
        return tuple(given)
    except Exception:  # noqa: BLE001  # part of the tool boundary: as for media
        return (value,)  # type: ignore[return-value]  # see above


@attrs.frozen
class ToolResult:
    """A value that a tool may return to say more than a text.

    To make one never fails: a tool makes it after its effect has happened.
    """

    content: str = attrs.field(default="", converter=_as_content)
    """What the model reads. Anything but a text becomes the text that the model would read of it, were it returned itself; the images and
    files in it become the first of the media."""
    is_error: bool = attrs.field(default=False, converter=_as_flag)
    """Whether the model is told that the call failed."""
    value: object = None
    """For the host's own use; the model does not see it."""
    media: Sequence[MediaPart] = attrs.field(default=(), converter=_as_media)
    """Images and files for the model, in order: `ImagePart` and `FilePart`."""
    messages: Sequence[UserMessage | Message] = attrs.field(default=(), converter=_as_messages)
    """Messages that come into the turn when all calls of the answer are done, before the model is asked again: `UserMessage`, or a
    `Message` of the role "user" or "assistant" with text, images and files; the last one is not an assistant's. They are stored and
    shown, as brought by the tool, and the model reads them after `content`. Messages of any other kind are left out, with a note."""

    def __attrs_post_init__(self) -> None:
        content = self.content
        if isinstance(content, _Described):
            object.__setattr__(self, "content", str.__str__(content))
            object.__setattr__(self, "media", (*content.media, *self.media))


@attrs.frozen
class Halt:
    """A value that a tool may return to stop the conversation until a person has acknowledged it, by `dismiss`."""

    message: str = attrs.field(converter=_as_text)
    """For people."""


def parse_arguments(text: str) -> JSON:
    """Return the arguments that a model's JSON text stands for: a new object.

    Args:
        text: as it was streamed; blanks, `null` and `""` stand for no arguments. The JSON text of a JSON text is read, too.

    Raises:
        ArgumentsInvalid: the text is not a JSON object, or two readers could read it differently.
    """
    if text.strip() in {"", "null", '""'}:
        return {}
    try:
        value = _loaded(text)
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = _loaded(value)  # a text that is the JSON of the object: some servers encode it twice
    except json.JSONDecodeError as exc:
        raise ArgumentsInvalid(None, [f"they are not valid JSON ({exc})"]) from exc
    except RecursionError as exc:
        raise ArgumentsInvalid(None, [f"they nest deeper than {MAX_DEPTH} levels"]) from exc
    except ValueError as exc:
        raise ArgumentsInvalid(None, [str(exc)]) from exc
    if not isinstance(value, dict):
        raise ArgumentsInvalid(None, [f"they must be a JSON object, not {kind_of(value)}"])
    return value


def _loaded(text: str) -> JSONValue:
    return plain_json(json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant), "the object")


def _unique(pairs: list[tuple[str, JSONValue]]) -> dict[str, JSONValue]:
    found: dict[str, JSONValue] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {cut(key)} in one object")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


# ── results ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@attrs.frozen
class Returned:
    """What a model reads of what a tool returned."""

    text: str
    media: Sequence[MediaPart] = ()
    is_error: bool = False
    problem: str = ""
    """What of the value has no JSON form, for the developer of the tool; "" if all of it has one."""
    messages: Sequence[Message] = ()
    """What the result brings into the turn; their ids are not theirs yet."""


def read_return(value: object, limit_bytes: int, media_bytes: int | None = None) -> Returned:
    """Return what a model reads of what a tool returned; nothing is raised, for any value.

    Args:
        value: a str is used unchanged, None as "". A `ToolResult` has its text and its media; an `ImagePart` or a `FilePart`
            anywhere in the value becomes one of the media. Everything else becomes JSON text; what has no JSON form is shown as
            text, and the model is told so. Not kept.
        limit_bytes: how many bytes of UTF-8 are kept of the text. A longer text ends, at a character, in a line that says so.
        media_bytes: how many characters of base64 data are kept of the media together; of media that are left out a line says what
            they were. None: as many as the text leaves of `limit_bytes`.
    """
    try:
        return _bounded(_described(value, limit_bytes), limit_bytes, media_bytes)
    except Exception as exc:  # noqa: BLE001  # part of the tool boundary: the call worked, even if its value cannot be read
        text = f"The call worked. What it returned ({named(value)}) could not be read: {type(exc).__name__}."
        return Returned(text, problem=f"{named(value)} could not be read: {type(exc).__name__}")


def render_output(value: object, limit_bytes: int) -> tuple[str, bool]:
    """Return the text that a model reads of a value, and whether it was cut.

    Args:
        value: as for `read_return`.
        limit_bytes: how many bytes of UTF-8 are kept.
    """
    text = _described(value, limit_bytes).text
    return _cut(text, limit_bytes)


def _described(value: object, limit_bytes: int) -> Returned:
    """Return the whole text of a value, and the media in it; only a value without an end is cut."""
    if isinstance(value, ToolResult):
        messages, problem = _read_messages(value.messages)
        text = storable(value.content)
        if problem:
            text = f"{text}\n[left out: {problem}]".lstrip("\n")
        return Returned(text, value.media, value.is_error, problem, messages)
    if value is None:
        return Returned("")
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return Returned(storable(str.__str__(value)))
    if isinstance(value, bytes | bytearray):
        return Returned(_text_of_bytes(bytes(value)))
    if is_unfinished(value):
        return _unfinished(value)
    writer = Writer(limit_bytes)
    form = writer.form(value)
    text = form if isinstance(value, ImagePart | FilePart) else json.dumps(form, ensure_ascii=False)
    if writer.is_cut:
        text = f"{text}\n[cut: the value has more than {limit_bytes} characters]"
    if not writer.notes:
        return Returned(text, writer.media)
    if isinstance(form, str) and len(writer.notes) == 1 and writer.notes[0].startswith("the value ("):
        text = f"The call worked. It returned {named(value)}, which is shown as text: {form}"
    else:
        text = f"{text}\n[The call worked. These values have no JSON form and are shown as text: {', '.join(writer.notes)}]"
    return Returned(text, writer.media, problem=f"no JSON form: {', '.join(writer.notes)}")


def _read_messages(given: Sequence[object]) -> tuple[Sequence[Message], str]:
    """Return the messages that a result may bring into a turn, and what is wrong with the others; "" if nothing is."""
    kept: list[Message] = []
    problem = ""
    for each in given:
        try:
            kept.append(_read_message(each))
        except (TypeError, ValueError) as exc:
            problem = f"a message of the result ({named(each)}): {storable(str(exc))[:MAX_REFUSAL]}"
    while kept and kept[-1].role == "assistant":
        kept.pop()  # a provider would continue it
        problem = problem or "the last message of a result must not be an assistant's"
    return tuple(kept), problem


def _read_message(given: object) -> Message:
    if isinstance(given, UserMessage):
        return Message("", "user", given.parts)
    if not isinstance(given, Message) or given.role not in {"user", "assistant"}:
        raise TypeError("it must be a UserMessage, or a Message of a user or an assistant")
    if given.role == "user":
        return Message("", "user", UserMessage([part for part in given.parts if isinstance(part, TextPart | ImagePart | FilePart)]).parts)
    text = check_text(given.text, "message")
    if not text.strip() or given.calls:
        raise ValueError("an assistant message must have text, and no calls")
    return Message("", "assistant", (TextPart(text),), "continued")


def _unfinished(value: object) -> Returned:
    if inspect.iscoroutine(value):
        value.close()  # otherwise a warning would say, later and elsewhere, that nobody awaited the coroutine
    hint = "declare the tool `async def`, or await inside it" if inspect.isawaitable(value) else "return the whole result, such as a list"
    text = f"The call worked, but it returned {named(value)}, which cannot be shown."
    return Returned(text, problem=f"the tool returned {named(value)}: {hint}")


def _text_of_bytes(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"[{len(data)} bytes that are not text]"


def _cut(text: str, limit_bytes: int) -> tuple[str, bool]:
    if len(text) <= limit_bytes and (text.isascii() or len(text) * 4 <= limit_bytes):
        return text, False
    data = text.encode()
    if len(data) <= limit_bytes:
        return text, False
    head = data[:limit_bytes].decode(errors="ignore")
    return f"{head}\n[cut: {len(head.encode())} of {len(data)} bytes shown]", True


def _bounded(said: Returned, limit_bytes: int, media_bytes: int | None) -> Returned:
    """Return the text and the media that there is room for, and what is told of the rest."""
    text, _ = _cut(said.text, limit_bytes)
    most = limit_bytes if media_bytes is None else media_bytes
    left = most - min(most, len(text.encode())) if media_bytes is None else media_bytes
    kept: list[MediaPart] = []
    for part in said.media:
        why = _why_not(part)
        size = 0 if why else sum(len(item) for item in attrs.astuple(part) if item is not None)
        if not why and size > left:
            why = f"only {left} of {most} bytes are left for it"
        if why:
            shown = label_of(part) if isinstance(part, ImagePart | FilePart) and not isinstance(part, type) else named(part)
            text = f"{text}\n[left out: {storable(shown)}; {why}]".lstrip("\n")
        else:
            left -= size
            kept.append(part)
    return attrs.evolve(said, text=text, media=tuple(kept))


def _why_not(part: object) -> str:
    """Return why something cannot be sent to a model as an image or a file; "" if it can."""
    if not isinstance(part, ImagePart | FilePart):
        return "media are ImagePart and FilePart"
    if isinstance(part, ImagePart) and part.data is None:
        return "" if part.url else "it has neither data nor a url"
    try:
        base64.b64decode(part.data or "", validate=True)
    except (binascii.Error, ValueError):
        return "its data are not base64"
    return "" if all(item is None or _is_storable(item) for item in attrs.astuple(part)) else "it has a text that is not UTF-8"


def _is_storable(text: str) -> bool:
    return text == storable(text)
