"""The page in a real browser, over a real flow."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from harness.process import free_port
from harness.server import service
from tests.integration.pipeline import Pipeline
from tests.samples import until
from tests.serving.services import serving
from tests.serving.test_routed import filled_tables, settings_in, store_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from harness.broker import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
WAIT_MS = 30_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium, of the system."""
    if PROGRAM is None:
        pytest.skip("there is no Chromium; install one: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """The page in a browser, and what it asked for and complained of."""

    def __init__(
        self, browser: Browser, url: str, *, width: int = 1280, dark: bool = False
    ) -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)
        self.url = url

    def shows(self, place: str, text: str) -> None:
        """Wait until there is a text at a place."""
        expect(self.page.locator(place)).to_contain_text(text, timeout=WAIT_MS)

    def is_wider_than_its_window(self) -> bool:
        """Whether one has to scroll sideways."""
        script = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return bool(self.page.evaluate(script))


def put(client: httpx.Client, identity: str, text: str) -> None:
    """Write a document over HTTP."""
    assert client.put(f"/v1/documents/{identity}", json={"text": text}).status_code == 202


def test_what_is_written_appears_and_is_found(
    broker: Broker, browser: Browser, tmp_path: Path
) -> None:
    """A document put over HTTP is shown as it becomes searchable, and found as one types.

    By keyboard alone, on a phone's width too, in the dark, and without a request to elsewhere.
    When the flow ends the page says so.
    """
    port = {"HEADRACE_METRICS__ADDRESS": f"127.0.0.1:{free_port()}"}
    pipeline = Pipeline(broker, tmp_path, settings=port)
    with pipeline, service(tmp_path, pipeline.environment) as client:
        until(lambda: client.get("/health/ready").status_code == 200, 60)
        opened = Opened(browser, str(client.base_url))
        opened.shows("#state", "live")
        expect(opened.page.locator("#token")).to_be_hidden()  # no one has asked for one
        put(client, "stool", "a stool of oak, to sit on")
        put(client, "lamp", "a lamp for reading at night")
        opened.shows("#latest", "stool")
        opened.page.keyboard.type("where can I sit?")  # the search box has the focus
        opened.shows("#found li:first-child", "stool")
        opened.shows("#search-told", "found in")
        opened.page.locator("#filter").fill("id = 'lamp'")
        opened.shows("#found li:first-child", "lamp")
        opened.page.locator("#filter").fill("nothing = 1")
        opened.shows("#search-told", "nothing")
        pipeline.put_raw(b"bad", b"{")
        pipeline.producer.flush(10)
        opened.shows("#dead", "bad_json")
        opened.shows("#lag", pipeline.topics.source)
        phone = Opened(browser, opened.url, width=360, dark=True)
        phone.shows("#latest", "stool")
        assert not phone.is_wider_than_its_window()
        assert phone.page.evaluate("getComputedStyle(document.body).backgroundColor") != (
            opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        )
        pipeline.flow.terminate()
        opened.shows("#state", "the flow does not answer")
        for one in (opened, phone):
            assert all(asked.startswith(("data:", one.url)) for asked in one.asked)
            assert one.complaints == []
    opened.shows("#state", "The server does not answer")


def test_recommendations_of_a_user_without_tables(
    broker: Broker, browser: Browser, tmp_path: Path
) -> None:
    """Where `flows.recommend` never ran, the page says what is missing and what makes it."""
    pipeline = Pipeline(broker, tmp_path)
    with service(tmp_path, pipeline.environment) as client:
        opened = Opened(browser, str(client.base_url))
        opened.page.locator("#user").fill("u123")
        opened.page.keyboard.press("Enter")
        opened.shows("#user-told", "flows.recommend")


def test_tables_of_tenants(browser: Browser, tmp_path: Path) -> None:
    """Where records name their table the page asks for one, and shows no documents unasked."""
    configured = settings_in(tmp_path)
    filled_tables(store_of(configured))
    with serving(configured) as url:
        opened = Opened(browser, url)
        opened.shows("#state", "does not answer")
        expect(opened.page.locator("#latest-section")).to_be_hidden()
        expect(opened.page.locator("#table-name")).to_be_hidden()
        opened.page.keyboard.type("flour")
        opened.shows("#search-told", "table: must be given")
        opened.page.locator("#table-name").fill("docs_x")
        opened.shows("#found li:first-child", "x1")
        opened.page.locator("#table-name").fill("docs_z")
        opened.shows("#search-told", "there is no such table")
        assert opened.complaints == []
