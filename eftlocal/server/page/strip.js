import { h, replace } from "./dom.js";
import { level, number } from "./trace.js";

const [STEP, HEIGHT] = [7, 48];

/** A chart of alpha (lines) and total variation (bars) of an answer; it scrolls with the text. */
export class Strip {
  constructor() {
    const jump = ({ offsetX }) => this.view.focus(Math.floor((offsetX + this.left) / STEP));
    this.canvas = h("canvas", { role: "img", onclick: jump });
    this.caption = h("figcaption");
    this.element = h("figure", { class: "strip", hidden: true }, this.canvas, this.caption);
    this.wake = () => (this.frame ??= requestAnimationFrame(() => this.draw()));
    new ResizeObserver(this.wake).observe(this.canvas);
    addEventListener("scroll", this.wake, { capture: true, passive: true });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.wake);
  }

  /** Show the tokens of a view. */
  follow(view) {
    if (!view.element.isConnected) return;
    if (this.view) this.view.onchange = null;
    view.onchange = this.wake;
    this.view = view;
    this.element.hidden = false;
    const names = view.experts.length > 1 ? view.experts : ["alpha"];
    const curves = names.flatMap((name, i) => [" ", h("span", { class: `curve e${i % 6}` }, name)]);
    const lines = view.speaker === "fused" ? [", lines: ", ...curves] : [];
    replace(this.caption, `${view.speaker}; bars: total variation`, ...lines);
    this.wake();
  }

  draw() {
    this.frame = null;
    const { canvas, view } = this;
    const width = canvas.clientWidth;
    if (!width || !view?.records.length) return;
    const { records, low, high } = view;
    const [from, to] = inSight(view);
    const left = Math.min(((from + to) * STEP - width) / 2, records.length * STEP - width);
    this.left = Math.max(0, left);
    const first = Math.floor(this.left / STEP);
    const shown = records.slice(first, first + Math.ceil(width / STEP) + 1);
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`);
    canvas.width = width * devicePixelRatio;
    canvas.height = HEIGHT * devicePixelRatio;
    const pen = canvas.getContext("2d");
    pen.scale(devicePixelRatio, devicePixelRatio);
    pen.translate(first * STEP - this.left, 0);
    pen.fillStyle = colour("sight");
    pen.fillRect((from - first) * STEP, 0, (to - from) * STEP, HEIGHT);
    for (const [i, { tv }] of shown.entries()) {
      pen.fillStyle = colour(level(tv) ? `v${level(tv)}` : "quiet");
      pen.fillRect(i * STEP + 1, HEIGHT, STEP - 2, -tv * HEIGHT);
    }
    const [least, most] = low < high ? [low, high] : [Math.min(0, low), Math.max(2, high)];
    const y = (alpha) => HEIGHT - 2 - ((alpha - least) / (most - least)) * (HEIGHT - 4);
    pen.lineWidth = 1.5;
    const isFused = view.speaker === "fused"; // a part has no alpha
    for (const expert of isFused ? records[0].alpha.keys() : []) {
      pen.strokeStyle = colour(`e${expert % 6}`);
      pen.beginPath();
      for (const [i, { alpha }] of shown.entries()) pen.lineTo((i + 0.5) * STEP, y(alpha[expert]));
      pen.stroke();
    }
    const mean = (of) => number(records.reduce((sum, each) => sum + of(each), 0) / records.length);
    const variation = records.some(({ tv }) => tv === null)
      ? "total variation not known" : `mean total variation ${mean(({ tv }) => tv)}`;
    const alpha = isFused ? `, mean alpha ${mean((each) => view.alphaOf(each)[0])}` : "";
    canvas.ariaLabel = `Chart of ${records.length} tokens: ${variation}${alpha}`;
  }
}

/** The tokens of a view that can be seen, from and to. */
function inSight({ element, spans }) {
  const box = element.closest("#conversation") ?? document.documentElement;
  const { top, bottom } = box.getBoundingClientRect();
  // Lines follow each other, so the ends are found by halving.
  const search = (isPast, from = 0, to = spans.length) => {
    if (from === to) return from;
    const middle = (from + to) >> 1;
    const isFound = isPast(spans[middle].getBoundingClientRect());
    return isFound ? search(isPast, from, middle) : search(isPast, middle + 1, to);
  };
  return [search((rect) => rect.bottom > top), search((rect) => rect.top >= bottom)];
}
