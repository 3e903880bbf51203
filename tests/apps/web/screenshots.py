"""Makes the pictures of the pages in the documentation: `nox -s screenshots`. Needs Chromium."""

from pathlib import Path
from typing import Any, Final

import trio

from tests.apps.web._browser import browse, open_page, served
from tests.apps.web.test_pages import config_of, editing, say

FOLDER: Final = Path(__file__).parents[3] / "docs" / "pictures"


async def main() -> None:
    """Hold a conversation, and take a picture of each page."""
    FOLDER.mkdir(exist_ok=True)
    async with served(config_of(editing(), chunk_size=6, chunk_interval=0.02)) as site:

        def visit(browser: Any) -> None:
            size = {"width": 1000, "height": 640}
            with open_page(browser, f"{site.address}debug#garden", viewport=size) as inspector:
                with open_page(browser, f"{site.address}#garden", viewport=size) as page:
                    say(page, "Please change the list in a.md")
                    page.get_by_role("button", name="Approve").wait_for()
                    page.wait_for_timeout(500)
                    page.screenshot(path=FOLDER / "chat.png")
                    page.get_by_role("button", name="Approve").click()
                    page.get_by_role("radio", name="blue").check()
                    page.get_by_role("button", name="Answer", exact=True).click()
                    page.get_by_text("bold").first.wait_for()
                inspector.wait_for_timeout(1500)
                inspector.screenshot(path=FOLDER / "debugger.png")

        await browse(visit)


if __name__ == "__main__":
    trio.run(main)
