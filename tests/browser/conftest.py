"""A real Chromium, without a window: the system's, where it is installed; nothing is downloaded."""

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1000,900",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # no page may need anything from outside
)  # fmt: skip


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A selenium driver of the system's Chromium, its log of requests on; skipped, and said, where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (found and driver):
        pytest.skip("needs the system's Chromium and its driver: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install 'minicc[dev]'")
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    chromium.set_page_load_timeout(300)  # a machine may have other work
    chromium.set_script_timeout(300)
    yield chromium
    chromium.quit()


class Requests:
    """What pages asked for and what failed, since it was last looked at; an answer with a status of 400 is a failure.

    What Chromium itself asks for (its own first page) does not count: only requests of documents on this machine.
    """

    def __init__(self, driver) -> None:
        self.driver = driver
        self.asked: list[str] = []
        self.failed: list[str] = []

    def read(self) -> "Requests":
        self.asked, self.failed, ours = [], [], {}
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            what, details = message["method"], message.get("params", {})
            if what == "Network.requestWillBeSent" and urlsplit(details["documentURL"]).hostname == "127.0.0.1":
                ours[details["requestId"]] = details["request"]["url"]
                self.asked.append(details["request"]["url"])
            elif details.get("requestId") in ours and (
                (what == "Network.responseReceived" and details["response"]["status"] >= 400)
                or (what == "Network.loadingFailed" and not details.get("canceled"))
            ):
                self.failed.append(ours[details["requestId"]])
        return self

    def outside(self) -> list[str]:
        """Addresses that are neither on this machine nor data that a page carries itself."""
        local = ("data", "blob", "about", "chrome", "devtools")
        return [
            url for url in self.asked if urlsplit(url).scheme not in local and urlsplit(url).hostname != "127.0.0.1"
        ]


@pytest.fixture
def requests(browser) -> Requests:
    return Requests(browser).read()


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., str]]:
    """serve(folder) → the address of a small server of its files; serve(handler=…) of another handler."""
    servers = []

    def start(folder: Path | None = None, handler: type | None = None) -> str:
        handler = handler or functools.partial(Quiet, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass
