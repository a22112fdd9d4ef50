"""The mask painter's browser half in a real Chromium: pointer events in, the mask out in Python."""

import base64
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from minicc import painter as painter_module
from minicc.data import dolls
from minicc.painter import MaskPainter, mask_from_strokes

from .conftest import Quiet

# A page that hosts front.js as a notebook does: a model of four methods, whose saved state goes to Python.
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><link rel="stylesheet" href="front.css">
<body style="margin: 20px"><div id="host"></div><script type="module">
import front from "./front.js";
const state = await (await fetch("state")).json();
state.picture = new DataView(Uint8Array.from(atob(state.picture), (c) => c.charCodeAt(0)).buffer);
const listeners = [];
window.saved = 0;
window.model = {
  get: (name) => state[name],
  set: (name, value) => { state[name] = value; listeners.forEach((f) => f()); },
  save_changes: async () => {
    await fetch("save", { method: "POST", body: JSON.stringify(state.strokes) });
    window.saved += 1;
  },
  on: (event, f) => listeners.push(f),
  off: (event, f) => listeners.splice(listeners.indexOf(f), 1),
};
window.remove = front.render({ model, el: document.getElementById("host") });
window.ready = true;
</script>"""


class Page:
    """A painter shown in the browser, and a hand that paints on it."""

    def __init__(self, browser, painter: MaskPainter, address: str) -> None:
        from selenium.webdriver.common.by import By

        self.browser, self.painter = browser, painter
        browser.get(address)
        self.until("return window.ready === true && document.querySelector('img').naturalWidth > 0")
        self.canvas = browser.find_element(By.TAG_NAME, "canvas")
        self.by_name = lambda name: browser.find_element(By.NAME, name)
        self.by_class = lambda name: browser.find_element(By.CLASS_NAME, name)

    def until(self, condition: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not self.browser.execute_script(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.02)

    def after(self, act) -> None:
        """Act, and wait until Python has been told."""
        count = self.browser.execute_script("return window.saved")
        act()
        self.until(f"return window.saved > {count}")

    def paint(self, points, kind: str = "mouse") -> None:
        """A stroke through points of the character, made by the browser's own pointer events."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        box = self.browser.execute_script(
            "const {left, top, width, height} = document.querySelector('canvas').getBoundingClientRect();"
            "return [left, top, width, height]"
        )
        width, height = self.painter.character.size
        actions = ActionBuilder(self.browser, mouse=PointerInput(kind, f"the {kind}"), duration=20)
        for i, (x, y) in enumerate(points):
            actions.pointer_action.move_to_location(
                round(box[0] + x * box[2] / width), round(box[1] + y * box[3] / height)
            )
            if i == 0:
                actions.pointer_action.pointer_down()
        actions.pointer_action.pointer_up()
        self.after(actions.perform)

    def brush(self, size: float) -> None:
        self.browser.execute_script("document.querySelector('[name=size]').value = arguments[0]", size)

    def press(self, name: str) -> None:
        self.after(self.by_name(name).click)

    def seen(self) -> np.ndarray:
        """What the canvas shows as painted, (H, W) bool, in the canvas's own pixels."""
        script = "return document.querySelector('canvas').toDataURL('image/png').split(',')[1]"
        canvas = Image.open(io.BytesIO(base64.b64decode(self.browser.execute_script(script))))
        return np.asarray(canvas)[..., 3] > 127


@pytest.fixture
def show(browser, serve):
    """show(painter) → a Page with it."""
    folder = painter_module.HERE

    def start(painter: MaskPainter) -> Page:
        class Notebook(Quiet):
            def do_GET(self) -> None:
                name = self.path.strip("/")
                if name == "state":
                    state = {name: getattr(painter.widget, name) for name in ("width", "height", "brush", "strokes")}
                    state["picture"] = base64.b64encode(painter.widget.picture).decode()
                    return self.answer(json.dumps(state), "application/json")
                if name in ("front.js", "front.css"):
                    kind = "text/javascript" if name.endswith("js") else "text/css"
                    return self.answer((folder / name).read_text("utf-8"), kind)
                return self.answer(PAGE, "text/html")

            def do_POST(self) -> None:
                painter.widget.strokes = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer("{}", "application/json")

            def answer(self, text: str, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.end_headers()
                self.wfile.write(text.encode())

        return Page(browser, painter, serve(handler=Notebook))

    pytest.importorskip("anywidget", reason="needs anywidget: pip install 'minicc[course]'")
    return start


def apart(a: Image.Image, b: Image.Image) -> np.ndarray:
    return np.asarray(a) != np.asarray(b)


def edge(mask: Image.Image) -> np.ndarray:
    """The pixels beside the mask's outline, two wide on each side."""
    from scipy.ndimage import binary_dilation, binary_erosion

    bits = np.asarray(mask) > 0
    return binary_dilation(bits, iterations=2) & ~binary_erosion(bits, iterations=2, border_value=1)


@pytest.mark.parametrize("kind", ["mouse", "pen", "touch"])
def test_what_a_hand_paints_is_the_mask_that_python_gets(show, requests, kind):
    painter = MaskPainter(dolls.draw(0, size=192).image)
    page = show(painter)
    assert not np.asarray(painter.mask).any()
    page.brush(24)
    first, second = [(40, 50), (90, 60), (100, 120)], [(130, 150)]
    page.paint(first, kind)
    page.paint(second, kind)

    expected = mask_from_strokes([{"points": first, "size": 24}, {"points": second, "size": 24}], (192, 192))
    assert painter.mask.mode == "L"
    assert painter.mask.size == painter.character.size
    assert set(np.unique(painter.mask)) == {0, 255}
    off = apart(painter.mask, expected)  # the browser's pointer moves by whole pixels of the screen
    assert not (off & ~edge(expected)).any()
    assert off.mean() < 0.01
    assert requests.read().outside() == []


def test_what_the_hand_sees_is_what_python_draws(show):
    painter = MaskPainter(dolls.draw(1, size=192).image)
    page = show(painter)
    page.brush(30)
    page.paint([(30, 30), (160, 40), (60, 170)])
    page.by_name("erase").click()
    page.brush(14)
    page.paint([(20, 60), (170, 90)])
    ring = page.by_class("minicc-ring").rect  # as large as the brush, where the pointer is
    assert ring["width"] * 192 / page.canvas.rect["width"] == pytest.approx(14, abs=1)
    assert (ring["x"] + ring["width"] / 2 - page.canvas.rect["x"]) * 192 / page.canvas.rect["width"] == pytest.approx(
        170, abs=2
    )
    off = page.seen() != (np.asarray(painter.mask) > 0)
    assert not (off & ~edge(painter.mask)).any()
    assert off.mean() < 0.005  # the canvas smooths its edges, the mask has none to smooth
    assert [stroke["erase"] for stroke in painter.strokes] == [False, True]


def test_undo_and_clear(show):
    painter = MaskPainter(dolls.draw(2, size=128).image, brush=10)
    page = show(painter)
    masks = [painter.mask]
    for x in (30, 60, 90):
        page.paint([(x, 20), (x, 100)])
        masks.append(painter.mask)
    page.press("undo")
    assert painter.mask == masks[2]
    page.press("clear")
    assert painter.mask == masks[0]
    page.press("undo")  # a slip of the hand costs nothing
    assert painter.mask == masks[2]
    page.press("undo")
    page.press("undo")
    page.press("undo")  # and one more than there was
    assert painter.mask == masks[0]
    assert not page.seen().any()


def test_a_large_picture_is_sent_small_and_painted_in_its_own_pixels(show):
    painter = MaskPainter(Image.new("RGBA", (1500, 3000), (200, 220, 240, 255)))
    assert max(Image.open(io.BytesIO(painter.widget.picture)).size) == 1024
    page = show(painter)
    page.brush(300)
    page.paint([(400, 500), (1000, 600)])
    expected = mask_from_strokes([{"points": [(400, 500), (1000, 600)], "size": 300}], (1500, 3000))
    both = (np.asarray(painter.mask) > 0) & (np.asarray(expected) > 0)
    assert painter.mask.size == (1500, 3000)
    assert both.sum() > 0.98 * max((np.asarray(m) > 0).sum() for m in (painter.mask, expected))
    assert page.seen().shape == (1024, 512)


def test_strokes_set_in_python_are_shown_and_a_removed_view_listens_no_more(show, browser):
    painter = MaskPainter(dolls.draw(3, size=128).image)
    painter.strokes = [{"points": [[64, 64]], "size": 40}]
    page = show(painter)
    assert 1100 < page.seen().sum() < 1400  # π 20²
    browser.execute_script("model.set('strokes', [])")
    assert not page.seen().any()
    browser.execute_script("window.remove(); model.set('strokes', [{points: [[9, 9]], size: 9}])")
    assert not page.seen().any()


def test_a_second_finger_does_not_paint(show, browser):
    painter = MaskPainter(dolls.draw(4, size=128).image, brush=10)
    page = show(painter)
    send = """const canvas = document.querySelector('canvas'), box = canvas.getBoundingClientRect();
    const send = (name, id, x, y) => canvas.dispatchEvent(new PointerEvent(name,
        { pointerId: id, clientX: box.left + x, clientY: box.top + y, bubbles: true, pointerType: 'touch' }));
    canvas.setPointerCapture = () => {};
    send('pointerdown', 1, 20, 20); send('pointerdown', 2, 200, 200); send('pointermove', 2, 250, 250);
    send('pointerup', 2, 250, 250); send('pointermove', 1, 30, 20); send('pointerup', 1, 30, 20);"""
    page.after(lambda: browser.execute_script(send))
    (stroke,) = painter.strokes
    assert len(stroke["points"]) == 2
