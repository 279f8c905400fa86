"""A real browser without a screen, and where its pictures are kept: build/screenshots of the checkout."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.lab.host import steps
from tests.lab.host.laptop import REPOSITORY

PICTURES = REPOSITORY / "build/screenshots"
PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1280,860",
)  # fmt: skip
SHOWN_IN = 90.0  # seconds: two cores, and a page of many scripts


def install() -> None:
    """Debian's Chromium and its driver, where they are not there yet."""
    lacking = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if lacking:
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        steps.run(["apt-get", "update"], step="apt-get update", timeout=300, env=env)
        argv = ["apt-get", "install", "-y", "--no-install-recommends", *lacking, "fonts-dejavu-core"]
        steps.run(argv, step=f"installing {' '.join(lacking)}", timeout=900, env=env)


class Browser:
    """Chromium as a user has it in front of them."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    @property
    def title(self) -> str:
        return str(self.driver.title)

    def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(PICTURES / f"{name}.png"))

    def script(self, text: str, *arguments: Any) -> Any:
        """What `text` returns; a promise is waited for."""
        return self.driver.execute_script(text, *arguments)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.driver.find_elements(By.CSS_SELECTOR, selector)]

    def until(self, holds: Callable[[], Any], what: str, seconds: float = SHOWN_IN) -> Any:
        """What `holds` gives, once it is true."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(WebDriverException):
                found = holds()
                if found:
                    return found
            if time.monotonic() > end:
                self.picture("not-shown")
                raise AssertionError(f"{what} was not shown; see {PICTURES / 'not-shown.png'}")
            time.sleep(0.2)

    def click(self, selector: str) -> None:
        """Click the last that can be seen."""

        def clicked() -> bool:
            seen = [one for one in self.driver.find_elements(By.CSS_SELECTOR, selector) if one.is_displayed()]
            if seen:
                seen[-1].click()
            return bool(seen)

        self.until(clicked, selector)

    def type_and_run(self, text: str) -> None:
        """Type `text` where the cursor is, then Shift and Enter."""
        keys = ActionChains(self.driver).send_keys(text)
        keys.key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    install()
    profile = tempfile.mkdtemp(prefix="chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(120)
        driver.set_script_timeout(60)
        yield Browser(driver)
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)
