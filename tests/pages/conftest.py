"""A browser for all tests of pages."""

from collections.abc import Iterator

import pytest
from browsing import CHROMIUM, OPTIONS, Visitor
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield started
        started.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """A visitor whose pages may neither complain nor ask the network for anything."""
    one = Visitor(browser)
    yield one
    for context in browser.contexts:
        context.close()
    assert one.complaints == []
    outside = [url for url in one.requests if not url.startswith(("file:", "data:", "blob:"))]
    assert outside == []
