"""A real Chromium, which looks at the pages as people do."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

WIDE, NARROW = (1400, 1000), (600, 1000)


def programs() -> tuple[str, str] | None:
    """Chromium and its driver, where both are installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


@contextmanager
def chromium(found: tuple[str, str], folder: Path) -> Iterator[Chrome]:
    """A browser without a window, and without anything to fetch by itself."""
    program, driver = found
    options = ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
        f"--user-data-dir={folder}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service(driver))
    try:
        browser.set_page_load_timeout(30)
        yield browser
    finally:
        browser.quit()


def resize(browser: Chrome, size: tuple[int, int], *, dark: bool) -> None:
    """Give the page a size in pixels, also below the smallest window, and a color scheme."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})


def faults(browser: Chrome) -> list[str]:
    """What the browser complained of: scripts that failed, and what the policy of the page kept out."""
    logged = browser.get_log("browser")  # type: ignore[no-untyped-call]  # selenium leaves it untyped
    meant = ("favicon", "status of 422")  # a form that was refused is one of our answers
    return [
        entry["message"]
        for entry in logged
        if entry["level"] in ("SEVERE", "WARNING") and not any(text in entry["message"] for text in meant)
    ]
