"""A real browser for the page tests: Debian's Chromium, headless; without it these tests are skipped."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if not (CHROMIUM and DRIVER):
                item.add_marker(
                    pytest.mark.skip(reason="Chromium and its driver are not installed: no page was tested")
                )


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_window_size(1200, 900)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser) -> Callable[[Path], None]:
    """Opens a page; after the test, its console must be empty and it must have requested nothing from the network."""
    import json

    def open_page(path: Path) -> None:
        browser.get_log("browser"), browser.get_log("performance")
        browser.get(path.as_uri())

    yield open_page
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith(("file:", "data:")) for url in asked)
