"""Images and files that a person posts, as they arrive at the provider."""

import base64
from abc import abstractmethod
from typing import Any, Final

import trio

from tests.support.providers.adapter import PATIENCE, Adapter, messages_in, without_marks
from tests.support.scenarios import answer_to, opened
from trio_sagents import Agent, FilePart, ImagePart, MemoryStore, TextPart, UserMessage
from trio_sagents.testing.providers import Provider

PNG: Final = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(250))).decode()
JPEG: Final = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(range(250))).decode()
PDF: Final = base64.b64encode(b"%PDF-1.7\n" + bytes(range(250))).decode()
ADDRESS: Final = "https://example.org/a%20b.png?size=2&x=%2F"
POSTED: Final = (
    TextPart("Compare these."),
    ImagePart("image/png", data=PNG),
    ImagePart("image/png", data=JPEG),
    ImagePart("image/webp", url=ADDRESS),
    FilePart("Bericht ä.pdf", "application/pdf", PDF),
    FilePart("notes.txt", "text/plain; charset=utf-8", base64.b64encode("Grüße\n".encode()).decode()),
    TextPart("What differs?"),
)


class PartContract(Adapter):
    """A message with all kinds of parts."""

    @abstractmethod
    def sent(self) -> list[Any]:
        """Return what goes out for `POSTED`, in its order."""

    async def test_parts_of_a_post(self, provider: Provider) -> None:
        """Every part arrives as the API takes it, in order, with the type that its bytes tell; also after a restart."""
        provider.replies += [self.says("They differ."), self.says("Yes.")]
        store = MemoryStore()
        with trio.fail_after(PATIENCE):
            for words in (UserMessage(POSTED), "Sure?"):
                async with opened(Agent(model=self.model(provider)), store=store) as sessions:
                    await answer_to(sessions, words)  # type: ignore[arg-type]  # whatever may be posted

        bodies = [without_marks(body) for body in provider.bodies]
        assert self.sent() == messages_in(bodies[0])[-1]["content"]
        assert messages_in(bodies[0])[-1] == messages_in(bodies[1])[-3]

    async def test_image_alone(self, provider: Provider) -> None:
        """A message may be an image and nothing else."""
        provider.replies.append(self.says("A cat."))
        with trio.fail_after(PATIENCE):
            async with opened(Agent(model=self.model(provider))) as sessions:
                await answer_to(sessions, UserMessage(POSTED[1:2]))  # type: ignore[arg-type]  # whatever may be posted

        assert self.sent()[1:2] == messages_in(without_marks(provider.bodies[0]))[-1]["content"]
