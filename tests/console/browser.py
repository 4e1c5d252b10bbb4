"""A real Chromium, which looks at the pages as people do."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support import wait_until

T = TypeVar("T")

WIDE, NARROW = (1400, 1000), (600, 1000)
OTHERS = ((1280, 1000), (900, 1000), (360, 800))
FITS = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
PAGE = "document.documentElement"
SCREENSHOTS = os.environ.get("CONSOLE_SCREENSHOTS")  # a folder, for whoever wants to look at the pages


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


def log_in(browser: Chrome, address: str) -> None:
    """Go to Flower's first page with the login in the address. Chromium remembers the login."""
    parts = urlsplit(address)
    browser.get(f"{parts.scheme}://alice:secret@{parts.netloc}/")


def faults(browser: Chrome) -> list[str]:
    """What the browser complained of: scripts that failed, and what the policy of the page kept out."""
    logged = browser.get_log("browser")  # type: ignore[no-untyped-call]  # selenium leaves it untyped
    meant = ("favicon", "status of 409", "status of 422")  # a form that was refused is one of our answers
    return [
        entry["message"]
        for entry in logged
        if entry["level"] in ("SEVERE", "WARNING") and not any(text in entry["message"] for text in meant)
    ]


def one(browser: Chrome, selector: str) -> WebElement:
    """The element that must come."""
    return wait_until(lambda: next(iter(browser.find_elements(By.CSS_SELECTOR, selector)), None), 15, selector)


def link(browser: Chrome, text: str) -> WebElement:
    """The link or button with this text in it."""
    path = f"//*[self::a or self::button][contains(normalize-space(.), {text!r})]"
    return wait_until(lambda: next(iter(browser.find_elements(By.XPATH, path)), None), 15, text)


def steadily(look: Callable[[], T]) -> T:
    """What a look finds or does, once more where the page replaced the element meanwhile."""
    found: list[T] = []

    def looked() -> bool:
        try:
            found.append(look())
        except StaleElementReferenceException:
            return False
        except WebDriverException as error:  # chromedriver's other word for it
            if "does not belong to the document" not in str(error):
                raise
            return False
        return True

    wait_until(looked, 15, "an element that stays")
    return found[0]


def text(browser: Chrome, selector: str) -> str:
    """The text of an element, also on a page that renews itself."""
    return steadily(lambda: one(browser, selector).text)


def attribute(browser: Chrome, selector: str, name: str) -> str:
    """An attribute of an element, also on a page that renews itself."""
    return steadily(lambda: str(one(browser, selector).get_attribute(name)))


def see(browser: Chrome, heading: str) -> None:
    """Wait for the page with this heading."""
    wait_until(lambda: text(browser, "h1") == heading, 15, heading)


def look(browser: Chrome, name: str) -> None:
    """Nothing is wider than the page, nothing was refused by its policy; in every width, and in both color schemes."""
    for size in (WIDE, NARROW, *OTHERS):
        for theme in ("light", "dark") if size in (WIDE, NARROW) else ("light",):
            resize(browser, size, dark=theme == "dark")
            wait_for_theme(browser, theme)
            assert browser.execute_script(FITS), f"{name} at {size}"
            if SCREENSHOTS:
                browser.save_screenshot(f"{SCREENSHOTS}/{name}-{size[0]}-{theme}.png")
    resize(browser, WIDE, dark=False)
    found = faults(browser)
    assert not found, found


def wait_for_theme(browser: Chrome, theme: str) -> None:
    """Flower's script hears of the color scheme a moment later, and then colors change a little at a time."""
    asked = (
        f"return {PAGE}.getAttribute('data-bs-theme') === '{theme}'"
        " && !document.getAnimations().some((one) => one instanceof CSSTransition)"
    )
    wait_until(lambda: browser.execute_script(asked), 10, f"the page is {theme}")
