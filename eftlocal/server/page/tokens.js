import { h, replace } from "./dom.js";
import { ORIGINS, level, number, percent, quoted } from "./trace.js";

const ALPHA = "how much of what tuning changed is added";
const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1, Home: -1e9, End: 1e9 };
// A pointer that rests this long (ms) is meant; so the card can be reached across other tokens.
const DWELL = 120;

/** The tokens of one answer in colours; the one that is pointed at or focused has the card. */
export class TokenView {
  /** See `fusionOf`; speaker: whose words these are, "fused" or a part's name. */
  constructor({ experts, weights, low, high, speaker }) {
    Object.assign(this, { experts, weights, low, high, speaker });
    Object.assign(this, { records: [], spans: [], current: 0 });
    const index = ({ target }) => this.spans.indexOf(target);
    this.element = h("div", {
      class: "tokens", role: "group", "aria-label": "Tokens of the answer",
      onpointerover: (event) => event.pointerType !== "touch" && card.hover(this, index(event)),
      onpointerleave: () => card.hover(this, -1),
      // Focus that comes back from the card is the browser's, which is just closing it.
      onfocusin: (event) => isInCard(event.relatedTarget) || card.open(this, index(event)),
      onfocusout: (event) => isInCard(event.relatedTarget) || card.close(),
      onclick: (event) => getSelection().isCollapsed && this.focus(index(event)),
      onkeydown: (event) => this.press(event),
    });
  }

  /** Append records of `compact`. */
  add(records) {
    for (const record of records) {
      // Browsers lay out a paragraph as a whole: the one that grows is an element of its own.
      this.line ??= this.element.appendChild(h("div"));
      // Blanks before a word stay uncoloured; at the end of a line they would be coloured boxes.
      const [, blanks, word] = /^((?: +(?=[^ ]))?)(.*)$/s.exec(record.text);
      const span = h("span", { class: this.classes(record) }, word);
      this.line.append(blanks, span);
      this.spans.push(span);
      this.records.push(record);
      if (word.endsWith("\n")) this.line = null;
    }
    this.spans[this.current]?.setAttribute("tabindex", 0);
    this.onchange?.();
  }

  /** Focus a token, which opens the card. */
  focus(index) {
    const span = this.spans[index];
    if (!span) return;
    this.spans[this.current].removeAttribute("tabindex");
    this.current = index;
    span.tabIndex = 0;
    span.focus({ preventScroll: true });
    card.open(this, index);
    span.scrollIntoView({ block: "nearest" });
  }

  press(event) {
    const step = STEPS[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.focus(Math.max(0, Math.min(this.spans.length - 1, this.current + step)));
  }

  /** One alpha, before weights (of several, the largest in size), and whether it is at a bound. */
  alphaOf({ alpha }) {
    const { low, high, weights } = this;
    if (low === high) return [low, false];
    const sizes = (weights ?? alpha).map(Math.abs);
    const i = sizes.indexOf(Math.max(...sizes));
    const chosen = weights ? alpha[i] / (weights[i] || 1) : alpha[i];
    const near = Math.min(Math.abs(chosen - low), Math.abs(chosen - high));
    return [chosen, near < 1e-6 * Math.max(1, high - low)];
  }

  classes(record) {
    const [alpha, bound] = this.alphaOf(record);
    const share = (alpha - this.low) / (this.high - this.low || Infinity);
    const { text, tv, origin, draft: drafted, isEnd: end } = record;
    const is = { bound, drafted, end, newline: text.startsWith("\n") };
    const names = Object.keys(is).filter((name) => is[name]);
    return ["token", `v${level(tv)}`, `a${level(share)}`, `by-${origin}`, ...names].join(" ");
  }
}

/** Explains the colours that are on, with a view's bounds of alpha: CSS shows one of three. */
export function legend({ low, high }) {
  const swatch = (name, text, title) => h("span", { class: `swatch ${name}`, title }, text);
  const at = (i, from, to) => Number((from + ((to - from) * i) / 5).toFixed(2));
  const steps = (name, ...ends) => [0, 1, 2, 3, 4].map((i) =>
    swatch(name + i, `${at(i, ...ends)} to ${at(i + 1, ...ends)}`));
  const searched = [...steps("a", low, high), swatch("bound", "at its bound")];
  const alphas = low < high ? searched : ["is the same everywhere"];
  const origins = Object.entries(ORIGINS).map(([word, text]) => swatch(`by-${word}`, word, text));
  return h("div", { class: "legend", role: "group", "aria-label": "Legend", tabindex: 0 },
    h("div", { class: "variation" }, "total variation ", ...steps("v", 0, 1)),
    h("div", { class: "alpha" }, "alpha ", ...alphas),
    h("div", { class: "origin" }, "who decided ", ...origins),
    h("div", {}, h("span", { class: "drafted" }, "dotted"), ": drafted and accepted"));
}

/** What every model wanted at one token; there is one card on the page, and CSS says where. */
class Card {
  constructor() {
    // The browser itself closes an "auto" popover on Escape and on a click elsewhere.
    this.element = h("div", {
      class: "card", role: "dialog", popover: "auto", tabindex: -1,
      onpointerenter: () => clearTimeout(this.timer),
      onpointerleave: () => this.hover(this.view, -1),
      onfocusout: ({ relatedTarget: to }) => isInCard(to) || this.span === to || this.close(),
    });
  }

  /** The pointer is at a token, or at none (-1): an open card goes back to the focused one then. */
  hover(view, index) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const focused = document.activeElement;
      const isOpen = this.element.matches(":popover-open");
      if (index >= 0) this.open(view, index);
      else if (isOpen && view.element.contains(focused)) this.open(view, view.current);
      else if (!isInCard(focused)) this.close();
    }, DWELL);
  }

  close() {
    clearTimeout(this.timer);
    this.element.hidePopover();
  }

  open(view, index) {
    clearTimeout(this.timer);
    const [span, record] = [view.spans[index], view.records[index]];
    if (!span?.isConnected) return;
    this.span?.style.removeProperty("anchor-name");
    this.span?.removeAttribute("aria-describedby");
    span.style.setProperty("anchor-name", "--token");
    span.setAttribute("aria-describedby", "card-facts");
    // So that Tab leads from the token into the card.
    if (view !== this.view) view.element.parentElement.after(this.element);
    Object.assign(this, { view, span });
    const props = { type: "button", "aria-label": "Close", onclick: () => this.close() };
    this.element.ariaLabel = `Token ${index + 1}: ${quoted(record.piece)}`;
    replace(this.element, h("button", props, "×"), ...content(record, view));
    this.element.togglePopover(true);
  }
}

function content(record, view) {
  const { alpha, tv, klBase, klTuned, origin, draft, models, piece } = record;
  const experts = alpha.length > 1 ? alpha.map((_, i) => `${view.experts[i] ?? i + 1} `) : [""];
  const named = (values) => values.map((value, i) => experts[i] + number(value)).join(", ");
  const fact = (name, value, title) => h("span", { title }, `${name} `, h("b", {}, value));
  const { speaker } = view;
  const facts = speaker === "fused" ? [fact("alpha", alphaText(record, view, named), ALPHA)] : [];
  if (models) {
    facts.push(fact("total variation", number(tv), `between ${speaker} and tuned model, 0 to 1`),
      fact(`KL(${speaker} ‖ base)`, number(klBase), "how far this is from the base, in nats"),
      fact("KL(tuned ‖ reference)", named(klTuned), "how far tuning went, in nats"));
  }
  const pairs = experts.flatMap((name) => [`${name}tuned`, `${name}reference`]);
  const names = [speaker, "base", ...pairs];
  const columns = models?.map((model, i) => column(names[i], model, piece));
  const who = h("span", { class: `swatch by-${origin}` }, origin ?? "not traced");
  const how = ` ${ORIGINS[origin] ?? "only alpha is known"}; `;
  const drafted = draft ? "drafted and accepted" : "not drafted";
  const first = h("p", {}, h("code", {}, quoted(piece)), " ", who, how, drafted);
  return [
    h("div", { id: "card-facts" }, first, h("p", { class: "row" }, ...facts)),
    h("div", { class: "models" }, ...(columns ?? [])),
  ];
}

/** Alpha in words; experts that are weighed share one, others have one each. */
function alphaText(record, view, named) {
  const [chosen, isBound] = view.alphaOf(record);
  const isShared = view.low === view.high || Boolean(view.weights);
  const shares = isShared && record.alpha.length > 1 ? ` (${named(record.alpha)})` : "";
  const text = isShared ? number(chosen) + shares : named(record.alpha);
  return text + (isBound ? " at its bound" : "");
}

/** The likeliest tokens of one model, and the chosen one where it is not among them. */
function column(name, { top, place, chosen }, piece) {
  const rows = place < 0 ? [...top, [piece, chosen]] : top;
  const lines = rows.map(([text, share], i) => {
    const props = i === place || i === top.length ? { class: "chosen", title: "chosen" } : {};
    const line = h("li", props, h("code", {}, quoted(text)), h("span", {}, percent(share)));
    line.style.setProperty("--share", share);
    return line;
  });
  return h("div", {}, h("b", {}, name), h("ol", { "aria-label": name }, ...lines));
}

const card = new Card();
const isInCard = (element) => card.element.contains(element);
