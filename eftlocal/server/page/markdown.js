import { h } from "./dom.js";
import MarkdownIt from "./vendor/markdown-it.mjs";

const LONGEST = 60_000; // characters that are read as Markdown; what follows is shown plain
const MOST_TOKENS = 15_000; // far more than honest Markdown of that length has
const DEEPEST = 40; // level of nesting; what lies deeper would be left out
const LONGEST_PARAGRAPH = 8_000; // no honest one is longer, and reading a hostile one is dear

const md = new MarkdownIt({ breaks: true, linkify: true, maxNesting: DEEPEST });
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
md.validateLink = (url) => /^(https?:\/\/|mailto:)/i.test(url);
md.core.ruler.before("inline", "tame", ({ tokens, env }) => {
  const last = tokens.findLast((token) => token.nesting >= 0 && token.content !== "");
  for (const token of tokens.filter(({ type }) => type === "inline")) {
    if (token.content.length > LONGEST_PARAGRAPH) token.type = "long";
    else if (env.growing && token === last) token.content = closed(token.content);
  }
});

/** What can be shown of a growing text: its last line may become part of a table, for example. */
function settled(text) {
  const start = text.lastIndexOf("\n") + 1;
  const line = text.slice(start).trim();
  if (!/^([-=*_+~`#|>:\s]*|\d+[.)]?|(```|~~~|\|).*)$/.test(line)) return text;
  const before = text.lastIndexOf("\n", start - 2) + 1;
  const isRule = (row) => /^[-|:\s]*$/.test(row);
  const isHead = text[before] === "|" && isRule(line) && !isRule(text.slice(before, start));
  return text.slice(0, isHead ? before : start);
}

/** Close what the end of a growing line leaves open: its markers would appear and vanish. */
function closed(line) {
  const text = line.replace(/!?\[([^[\]]*)\]\([^()]*$/, "$1").replace(/(^|\s)[*~`]+$/, "$1");
  const ticks = text.match(/`+/g) ?? [];
  if (ticks.length % 2) return text + ticks.at(-1);
  const words = text.replace(/`[^`]*`/g, "");
  const open = /(?:^|[\s("'>])(\*\*|\*|~~)(?=[^\s*~])(?:(?!\1).)*$/s.exec(words)?.[1];
  return open ? text.trimEnd().replace(/[*~]$/, "") + open : text;
}

/** Plain text in pieces that the browser lays out one by one; they end with a line if they can. */
function plain(text) {
  const pieces = text.match(/[^]{1,2000}[^\n]{0,2000}\n?/gu) ?? [];
  return pieces.map((key) => ({ key, make: () => h("div", { class: "plain" }, key) }));
}

/** The top-level blocks of a text. A block whose key is the same as before has not changed. */
function blocks(text, growing) {
  const [env, found, lines] = [{ growing }, [], text.split(/\r\n?|\n/)];
  const tokens = md.parse(text, env);
  for (const token of tokens) {
    if (token.level === 0 && token.nesting >= 0) found.push([]);
    found.at(-1).push(token);
  }
  const isTooDeep = tokens.some(({ level }) => level >= DEEPEST - 1);
  if (isTooDeep || tokens.length + 9 * found.length > MOST_TOKENS) return plain(text);
  const reference = Object.entries(env.references ?? {}).at(-1); // a growing text changes the last
  return found.map((block, index) => {
    const isOpen = growing && index === found.length - 1;
    const key = [block[0].type, isOpen, reference, lines.slice(...block[0].map)];
    return { key: JSON.stringify(key), make: () => nodes(block)[0] };
  });
}

/** Turn tokens into nodes. No text of a model is ever read as HTML. */
function nodes(tokens) {
  const open = [{ inside: [] }];
  for (const token of tokens) {
    if (token.nesting > 0) open.push({ token, inside: [] });
    else {
      const done = token.nesting < 0 ? open.pop() : { token, inside: [] };
      const inLink = open.some((outer) => outer.token?.type === "link_open");
      for (const node of made(done.token, done.inside, inLink)) open.at(-1).inside.push(node);
    }
  }
  return open[0].inside;
}

function made({ type, tag, content, children, info, hidden, attrs }, inside, inLink) {
  const { href, src, title, start, style } = Object.fromEntries(attrs ?? []);
  const away = { title, target: "_blank", rel: "noopener noreferrer" };
  const image = `Image: ${content || "no description"}`;
  switch (type) {
    case "text": return [content];
    case "inline": return nodes(children);
    case "long": return plain(content).map(({ make }) => make());
    case "code_inline": return [h("code", {}, content)];
    case "softbreak": case "hardbreak": return [h("br"), "\n"];
    case "image": return [inLink ? image : h("a", { href: src, ...away }, image)];
    case "link_open": return [h("a", { href, ...away }, ...inside)];
    case "fence": case "code_block": return [codeBlock(content.replace(/\n$/, ""), info)];
    case "table_open": return [scroller("Table", "div", h(tag, {}, ...inside))];
    case "heading_open": return [h(`h${Math.min(6, Number(tag[1]) + 2)}`, {}, ...inside)];
  }
  const align = style && { class: style.slice("text-align:".length) };
  return hidden ? inside : [h(tag, { start, ...align }, ...inside)];
}

function codeBlock(text, info) {
  const onclick = ({ currentTarget: button }) =>
    copyText(button, button.closest("figure").querySelector("code").textContent);
  const copy = h("button", { type: "button", onclick }, "Copy code");
  const language = info.trim().split(/\s/)[0].slice(0, 30) || "code";
  const code = scroller("Code", "pre", h("code", {}, text));
  return h("figure", { class: "code" }, h("figcaption", {}, language, copy), code);
}

function scroller(label, tag, child) {
  return h(tag, { class: "scroll", role: "group", "aria-label": label, tabindex: 0 }, child);
}

/** Put a text on the clipboard, also where there is no https, and let the button say so. */
export async function copyText(button, text) {
  const label = (button.dataset.label ??= button.textContent);
  let isCopied = Boolean(navigator.clipboard);
  await navigator.clipboard?.writeText(text).catch(() => (isCopied = false));
  if (!isCopied) {
    const area = h("textarea", { class: "clipboard", readonly: true }, text);
    button.after(area);
    area.select();
    isCopied = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = isCopied ? "Copied" : "Not copied";
  setTimeout(() => (button.textContent = label), 2000);
}

/** Change a node into another one. What is equal stays: nobody loses a selection in it. */
function morph(old, fresh) {
  if (old.isEqualNode(fresh) || old.nodeName === "BUTTON") return;
  const isAlike = old.firstChild && old.cloneNode().isEqualNode(fresh.cloneNode());
  if (!isAlike) {
    old.replaceWith(fresh);
    return;
  }
  const kept = [...old.childNodes];
  for (const node of [...fresh.childNodes]) {
    if (kept.length) morph(kept.shift(), node);
    else old.append(node);
  }
  for (const node of kept) node.remove();
}

/** A text in Markdown, which may grow. Nothing in it can run, or load anything. */
export class Markdown {
  element = h("div", { class: "markdown" });
  #text = "";
  #growing = false;
  #timer = 0;
  #next = 0; // when it may be drawn again
  #keys = [];

  /** Show a text soon. While it grows, its unfinished end may be shown a little later. */
  update(text) {
    if (text === this.#text) return;
    if (!text.startsWith(this.#text)) this.#keys = [];
    this.#text = text;
    this.#growing = true;
    this.#timer ||= setTimeout(() => this.#draw(), this.#next - performance.now());
  }

  /** Show all of the text now. */
  finish() {
    if (!this.#growing) return;
    this.#growing = false;
    this.#draw();
  }

  #draw() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const began = performance.now();
    const all = this.#blocks();
    const old = [...this.element.childNodes];
    for (const [index, { key, make }] of all.entries()) {
      if (!old[index]) this.element.append(make());
      else if (key !== this.#keys[index]) morph(old[index], make());
    }
    for (const node of old.slice(all.length)) node.remove();
    this.#keys = all.map(({ key }) => key);
    const cost = performance.now() - began;
    this.#next = began + cost + Math.max(30, 4 * cost); // a fifth of the time at most
  }

  #blocks() {
    const text = this.#text;
    if (text.length > LONGEST) {
      const end = text.lastIndexOf("\n", LONGEST - 1) + 1 || LONGEST;
      return [...blocks(text.slice(0, end), false), ...plain(text.slice(end))];
    }
    return blocks(this.#growing ? settled(text) : text, this.#growing);
  }
}
