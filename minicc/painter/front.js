// The browser half of MaskPainter. State that both halves share: picture (PNG), width, height, brush, strokes.
// A stroke is {points: [[x, y], …], size, erase}, in the character's pixels; Python draws the mask from these.

const TINT = "#D55E00";
const round = (value) => Math.round(value * 10) / 10;

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// One stroke as Python draws it: a round brush along the points; a disc first, for a canvas draws no line to where it is.
function draw(context, stroke) {
  const [[x, y], ...rest] = stroke.points;
  context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
  context.fillStyle = context.strokeStyle = TINT;
  context.lineWidth = stroke.size;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.arc(x, y, stroke.size / 2, 0, 2 * Math.PI);
  context.fill();
  context.beginPath();
  context.moveTo(x, y);
  for (const point of rest) context.lineTo(...point);
  context.stroke();
}

function render({ model, el }) {
  const [width, height] = [model.get("width"), model.get("height")];
  const scale = Math.min(1, 1024 / Math.max(width, height)); // canvas pixels for one of the character's
  const picture = element("img", { alt: "the character", draggable: false });
  const address = URL.createObjectURL(new Blob([model.get("picture")], { type: "image/png" }));
  picture.src = address;
  const canvas = element("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "paint over what shall change");
  const context = canvas.getContext("2d");

  const size = element("input", { type: "range", min: 1, max: Math.ceil(Math.max(width, height) / 3), step: 1 });
  size.value = model.get("brush");
  size.name = "size";
  const erase = element("input", { type: "checkbox", name: "erase" });
  const undo = element("button", { type: "button", name: "undo", textContent: "Undo" });
  const clear = element("button", { type: "button", name: "clear", textContent: "Clear" });
  const bar = element("div", { className: "minicc-bar" }, element("label", {}, "Brush ", size));
  bar.append(element("label", {}, erase, " Erase"), undo, clear);
  const ring = element("div", { className: "minicc-ring", hidden: true }); // the brush, under the pointer
  const sheet = element("div", { className: "minicc-sheet" }, picture, canvas, ring);
  sheet.style.width = `${Math.max(width * scale, Math.min(384, width * 4))}px`; // small pictures are shown larger
  el.classList.add("minicc-painter");
  el.append(bar, sheet);

  let pointer = null; // the one that paints; a second finger does not
  let stroke = null; // what it has painted since it went down
  let before = []; // what undo goes back to: the strokes before each change made here
  let own = false; // whether a change is made here, and not in Python or in another view

  function repaint() {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    for (const each of model.get("strokes")) draw(context, each);
    if (stroke) draw(context, stroke);
  }

  function change(strokes) {
    own = true;
    model.set("strokes", strokes);
    own = false;
    model.save_changes();
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return [round(x * width), round(y * height)];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || (event.button > 0 && event.button !== 5)) return; // 5: the other end of a pen
    event.preventDefault();
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    stroke = { points: [place(event)], size: Number(size.value), erase: erase.checked || event.button === 5 };
    repaint();
  });
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    ring.hidden = false;
    ring.style.left = `${event.clientX - box.left}px`;
    ring.style.top = `${event.clientY - box.top}px`;
    ring.style.width = `${(size.value * box.width) / width}px`;
    if (event.pointerId !== pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) stroke.points.push(place(each));
    repaint();
  });
  function lift(event) {
    if (event.pointerId !== pointer) return;
    const painted = stroke;
    pointer = stroke = null;
    before.push(model.get("strokes"));
    change([...model.get("strokes"), painted]);
  }
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", () => (ring.hidden = true));

  undo.addEventListener("click", () => change(before.pop() ?? model.get("strokes").slice(0, -1)));
  clear.addEventListener("click", () => {
    before.push(model.get("strokes"));
    change([]);
  });

  function changed() {
    if (!own) before = [];
    repaint();
  }
  model.on("change:strokes", changed);
  repaint();
  return () => {
    model.off("change:strokes", changed);
    URL.revokeObjectURL(address);
  };
}

export default { render };
