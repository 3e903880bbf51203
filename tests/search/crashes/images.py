"""What a disk may hold after a loss of power: everything that was synced, and any part of what was not.

`Recording` notes each step that SQLite does to the disk, and between them what the library acknowledged. `images` goes through it and,
at random moments, makes folders as the next start might find them:

- what was written and not synced is there or not, in any combination, each write whole or torn at the sectors of the disk (512 bytes,
  or 4,096); or it is there up to some point, in order, the last write torn;
- a truncation is a write like others;
- a file that was made or deleted is there or not until its folder was synced, which SQLite does with the first sync of a new log.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import attrs

from tests.search.crashes.disk import Step

Sync: TypeAlias = Literal["all", "none", "log_never"]
"""How the disk treats syncs: it does them, or it lies about all of them, or about those of the write-ahead log."""
_TORN: Final = 0.3
"""How many of the writes that are there are torn."""


@attrs.define(eq=False)
class Recording:
    """Steps of the disk, lines that acknowledge something, and commits, in the order in which they came."""

    base: Mapping[str, bytes] = attrs.field(factory=dict)
    """The files that were there, and synced, when it began."""
    entries: "list[Step | str | Committed]" = attrs.field(factory=list)

    def watch(self, step: Step) -> bool:
        """Note a step; a watcher of the disk. Called in the threads of the store."""
        self.entries.append(step)
        return True

    def note(self, *words: str) -> None:
        """Note an acknowledgement."""
        self.entries.append(" ".join(words))


@attrs.frozen
class Committed:
    """A commit was made in a transaction, which may still be undone."""

    """The number of the commit, over all conversations."""
    name: str
    revision: int


@attrs.define(eq=False)
class _Content:
    """A file, whatever its name: what is safe, and what was done since."""

    safe: bytearray = attrs.field(factory=bytearray)
    loose: list[Step] = attrs.field(factory=list)


@attrs.frozen
class Image:
    """One state of the disk that the next start might find."""

    moment: int
    """How many entries of the recording lie before it."""
    files: Mapping[str, bytes]

    def write(self, folder: Path) -> None:
        """Put the files into a folder, and remove what else is in it."""
        for path in folder.iterdir():
            path.unlink()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


@attrs.define(eq=False)
class _Disk:
    names: dict[str, _Content]
    """As the running process sees it."""
    safe_names: dict[str, _Content]
    loose_names: list[tuple[str, _Content | None]] = attrs.field(factory=list)
    """What was done to names since their folder was synced: the new content of a name, None for a deletion."""

    @classmethod
    def holding(cls, files: Mapping[str, bytes]) -> "_Disk":
        names = {name: _Content(bytearray(content)) for name, content in files.items()}
        return cls(names, dict(names))

    def do(self, step: Step, sync: Sync) -> None:
        """Do a step."""
        match step.kind:
            case "open":
                if step.name not in self.names:  # made by SQLite, or by the library before it
                    self.names[step.name] = _Content()
                    self.loose_names.append((step.name, self.names[step.name]))
            case "write" | "truncate":
                self.names[step.name].loose.append(step)
            case "delete":
                del self.names[step.name]
                self.loose_names.append((step.name, None))
            case "sync" if sync == "all" or (sync == "log_never" and not step.name.endswith("-wal")):
                content = self.names[step.name]
                for write in content.loose:
                    _apply(content.safe, write)
                content.loose.clear()
        if step.syncs_folder and sync != "none":
            for name, new in self.loose_names:
                _rename(self.safe_names, name, new)
            self.loose_names.clear()

    def image(self, moment: int, choose: random.Random) -> Image:
        """Return what may be left if the power goes now."""
        share = choose.choice((0.0, 0.5, 0.9, 1.0))
        names = dict(self.safe_names)
        for name, new in self.loose_names:
            if choose.random() < share:
                _rename(names, name, new)
        sector = choose.choice((512, 4096))
        files = {}
        for name, content in names.items():
            data = bytearray(content.safe)
            in_order = choose.random() < 0.3
            steps = content.loose[: choose.randint(0, len(content.loose))] if in_order else content.loose
            for place, step in enumerate(steps):
                is_last = in_order and place == len(steps) - 1
                if not in_order and choose.random() >= share:
                    continue
                if step.data and (is_last or (not in_order and choose.random() < _TORN)):
                    for part in _torn(step, sector):
                        if choose.random() < 0.5:
                            _apply(data, part)
                else:
                    _apply(data, step)
            files[name] = bytes(data)
        return Image(moment, files)


def _rename(names: dict[str, _Content], name: str, new: _Content | None) -> None:
    if new is None:
        names.pop(name, None)
    else:
        names[name] = new


def _apply(data: bytearray, step: Step) -> None:
    if step.kind == "truncate":
        del data[step.place :]
        return
    if len(data) < step.place:
        data.extend(bytes(step.place - len(data)))
    data[step.place : step.place + len(step.data)] = step.data


def _torn(step: Step, sector: int) -> Iterator[Step]:
    """Yield the parts of a write that lie in different sectors of the disk."""
    place, end = step.place, step.place + len(step.data)
    while place < end:
        border = min(end, (place // sector + 1) * sector)
        yield attrs.evolve(step, place=place, data=step.data[place - step.place : border - step.place])
        place = border


def images(recording: Recording, count: int, choose: random.Random, sync: Sync = "all") -> Iterator[Image]:
    """Yield images of random moments of a recording, in the order of the moments."""
    moments = sorted(choose.randint(1, len(recording.entries)) for _ in range(count))
    disk = _Disk.holding(recording.base)
    done = 0
    for moment in moments:
        for entry in recording.entries[done:moment]:
            if isinstance(entry, Step):
                disk.do(entry, sync)
        done = moment
        yield disk.image(moment, choose)


def wrong_prefix(entries: Sequence[Step | str | Committed], base: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """Return where a file differs from the state after one of its commits: everything up to that commit, and nothing after it.

    Args:
        entries: of the recording, up to the moment of the image.
        base: by conversation, its revision when the recording began.
        found: the same, in the image.
    """
    # A transaction that was undone may be in the recording, too: what counts is when a revision was made the last time.
    made = {(entry.name, entry.revision): place for place, entry in enumerate(entries) if isinstance(entry, Committed)}
    last = max((place for (name, revision), place in made.items() if found.get(name, 0) >= revision), default=-1)
    expected = dict(base)
    expected.update((name, revision) for name, revision in sorted(made, key=made.__getitem__) if made[name, revision] <= last)
    return [
        f"{name}: it is at revision {found.get(name, 0)}, but at {revision} when the last commit was made that is there"
        for name, revision in expected.items()
        if found.get(name, 0) != revision
    ]
