"""The mask painter in a real JupyterLab: kernel, widget manager, browser and all. Slow: run with -m slow."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from minicc.data import dolls
from minicc.painter import mask_from_strokes

CELL = """from PIL import Image
from minicc.painter import MaskPainter
painter = MaskPainter(Image.open("character.png"), brush=20)
painter.widget.observe(lambda change: painter.mask.save("mask.png"), "strokes")
painter"""


def until(condition: Callable[[], object], what: str, seconds: float = 240) -> object:
    """The first true value of condition(); an error, while something is not there yet, counts as false."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except Exception as error:
            what = f"{what} ({error})" if len(what) < 200 else what
        time.sleep(0.2)
    raise AssertionError(f"never came: {what}")


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab with a notebook of one cell; the address of the notebook."""
    pytest.importorskip("jupyterlab", reason="needs Jupyter: pip install 'minicc[course]'")
    dolls.draw(0, size=192).image.save(tmp_path / "character.png")
    cell = {"cell_type": "code", "id": "a", "source": CELL, "metadata": {}, "outputs": [], "execution_count": None}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "paint.ipynb").write_text(json.dumps(notebook))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
        f"--port={port}", "--ip=127.0.0.1", "--IdentityProvider.token=paint", "--LabApp.news_url=",
        f"--ServerApp.root_dir={tmp_path}",
    ]  # fmt: skip
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **own}, stdout=log, stderr=log)
        until(lambda: urlopen(f"http://127.0.0.1:{port}/api?token=paint").status == 200, "the server")
        yield f"http://127.0.0.1:{port}/lab/tree/paint.ipynb?token=paint"
        server.terminate()
        server.wait(60)


@pytest.mark.slow
def test_in_jupyterlab_a_stroke_in_the_browser_is_a_mask_in_the_kernel(lab, browser, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    browser.get(lab)
    until(lambda: browser.find_element(By.CSS_SELECTOR, ".jp-Notebook .jp-CodeCell"), "the notebook")
    ready = "return jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    until(lambda: browser.execute_script(ready), "the kernel")
    browser.execute_script("jupyterapp.commands.execute('notebook:run-all-cells')")
    canvas = until(lambda: browser.find_element(By.CSS_SELECTOR, ".minicc-painter canvas"), "the painter")
    until(lambda: browser.execute_script("return document.querySelector('.minicc-painter img').naturalWidth"), "doll")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    width = browser.execute_script("return arguments[0].getBoundingClientRect().width", canvas)
    one = width / 192  # a pixel of the character, on the screen
    hand = ActionChains(browser).move_to_element_with_offset(canvas, -round(40 * one), 0).click_and_hold()
    hand.move_by_offset(round(80 * one), 0).release().perform()

    def painted() -> Image.Image:
        with Image.open(tmp_path / "mask.png") as file:
            return file.copy()

    mask = until(painted, "the mask")
    expected = mask_from_strokes([{"points": [(56, 96), (136, 96)], "size": 20}], (192, 192))
    off = np.asarray(mask) != np.asarray(expected)
    assert mask.size == (192, 192)
    assert off.sum() < 0.1 * (np.asarray(expected) > 0).sum()  # the hand moves by whole pixels of the screen
