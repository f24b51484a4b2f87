"""The report in a real browser: it requests nothing and fits the width of the screen."""

import pytest
from helpers import SMALL, main_here, train_here
from selenium.webdriver.common.by import By

from resultAnalyze import report


@pytest.fixture(scope="module", params=["ncf", "ncf-ranking"])
def page(request, places, tmp_path_factory):
    run = tmp_path_factory.mktemp("reported") / "run"
    flags = ("--preset", request.param, "--epochs", 2, *SMALL[request.param], "--split", "cold-movies")
    main_here(report, "--run", train_here(*places, "--run", run, *flags))
    return run / "report.html"


@pytest.mark.parametrize("width", [360, 1200])
def test_the_report_opens_and_fits(opened, browser, page, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened(page)
        assert browser.execute_script("return document.scrollingElement.scrollWidth") <= width
        headings = [one.text for one in browser.find_elements(By.TAG_NAME, "h2")]
        assert headings == [
            *("How good", "What was trained", "By epoch", "For whom", "Cold and warm"),
            *("Lists of ten users", "To repeat it"),
        ]
        assert all(one.size["height"] > 100 for one in browser.find_elements(By.TAG_NAME, "svg"))
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
