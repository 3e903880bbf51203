"""What middleware tells the viewers of a conversation, as lines."""

from trio_sagents import MiddlewareEvent, RequestShortened
from trio_sagents.cli._words import Kind, error_text
from trio_sagents.files import FileChange, FileChangesLost, FileDeleted, FileEditLost, FileMoved, FileSaved, FileSaveFailed, FileUpdated
from trio_sagents.middleware import SummaryFailed, SummaryMade, SummaryStarted, TitleGenerated
from trio_sagents.middleware.files import FilesChanged


def news_text(event: MiddlewareEvent) -> tuple[str, Kind]:
    """Return the line for an event of a middleware, and its kind; an empty line for an event that is not shown."""
    match event:
        case TitleGenerated(title=title):
            return f"[title: {title}]", "note"
        case SummaryStarted(tokens=tokens):
            return f"[the conversation has about {tokens} tokens: its older part is being summed up for the model]", "note"
        case SummaryMade(tokens=tokens):
            return f"[summed up: the model reads about {tokens} tokens; nothing is lost here]", "note"
        case SummaryFailed(error=error):
            return f"[no summary: {error_text(error)}; the model reads the whole conversation]", "note"
        case RequestShortened(tokens=tokens):
            return f"[too long for the model: it reads about {tokens} tokens of the conversation now; nothing is lost here]", "note"
        case FilesChanged(change=change):
            return _change_text(change)
        case _:
            return "", "note"


def _change_text(change: FileChange) -> tuple[str, Kind]:
    match change:
        case FileUpdated(path=path):
            return f"  · {path} changed", "tool"
        case FileDeleted(path=path):
            return f"  · {path} is gone", "tool"
        case FileMoved(old=old, new=new):
            return f"  · {old} is now {new}", "tool"
        case FileSaveFailed(path=path, retry_in=seconds):
            return f"  · {path} could not be saved; retrying in {seconds:g} s", "error"
        case FileEditLost(path=path):
            return f"  · an edit of {path} was not saved: somebody else has changed the file", "error"
        case FileChangesLost(count=count):
            return f"  · {count} more changes of files", "tool"
        case FileSaved():
            return "", "tool"
