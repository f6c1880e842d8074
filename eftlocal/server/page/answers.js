import { h, replace } from "./dom.js";
import { Markdown } from "./markdown.js";
import { describe, Settings } from "./settings.js";
import { TokenView } from "./tokens.js";
import { compact } from "./trace.js";

export const PARTS = { fused: "fused", tuned: "tuned alone", base: "base alone" };
const ENDS = {
  length: "It ends here because the context, or the number of tokens asked for, is used up.",
  stopped: "Stopped.",
};

/** A new answer, to be stored; what it is made with does not change any more. */
export function newAnswer(id, { model, changes, part, props }) {
  const { experts, default_generation_settings: own } = props;
  const bounds = Settings.bounds(own.params, changes);
  const facts = { id, model, changes, part, experts, bounds, nCtx: props.n_ctx };
  return { ...facts, state: "waiting", text: "", reasoning: "", error: "" };
}

/** Shows one answer while it comes and afterwards. */
export class AnswerView {
  /**
   * @param answer is filled in as chunks come.
   * @param onView called with the token view that somebody looks at.
   */
  constructor(answer, onView) {
    this.answer = answer;
    this.onView = onView;
    this.records = [];
    this.pieces = {};
    this.pending = [];
    this.markdown = new Markdown();
    this.thinking = h("div", { class: "thoughts" });
    this.reasoning = h("details", { hidden: true }, h("summary", {}, "Reasoning"), this.thinking);
    this.tokens = h("div", { class: "token-place" });
    this.notice = h("p", { class: "notice", hidden: true });
    this.head = h("p", { class: "made-with" });
    this.facts = h("p", { class: "facts soft" });
    this.compared = h("p", { class: "facts soft" });
    this.tools = h("div", { class: "tools" });
    const body = h("div", { class: "text" }, this.reasoning, this.markdown.element);
    this.element = h("article", {
      class: "answer",
      onpointerenter: () => this.view && onView(this.view),
      onfocusin: () => this.view && onView(this.view),
    });
    this.body = [body, this.tokens];
    const below = [this.notice, this.facts, this.compared, this.tools];
    this.element.append(this.head, ...this.body, ...below);
    this.refresh();
  }

  /** The elements whose texts are compared with other answers'. */
  get shownText() {
    return this.element.classList.contains("has-tokens") && isTokenView()
      ? this.tokens : this.markdown.element;
  }

  /** Begin anew, where a request is sent again. */
  clear() {
    Object.assign(this.answer, { text: "", reasoning: "", error: "", state: "waiting" });
    this.refresh();
  }

  /** Take a chunk of the stream; it is drawn with the next frame. */
  take(chunk) {
    const { answer } = this;
    const [choice] = chunk.choices;
    const tokens = choice?.eft?.tokens ?? [];
    if (answer.state === "waiting" && tokens.length) {
      answer.state = "streaming";
      this.began = performance.now();
    }
    answer.text += choice?.delta.content ?? "";
    answer.reasoning += choice?.delta.reasoning_content ?? "";
    answer.finish = choice?.finish_reason ?? answer.finish;
    answer.timings = chunk.timings ?? answer.timings;
    answer.usage = chunk.usage ?? answer.usage;
    answer.seed = chunk.eft?.seed ?? answer.seed;
    this.pending.push(...tokens);
  }

  /** Draw what has come; what is hidden waits until it is shown. */
  flush() {
    const { answer } = this;
    if (!this.view || !isTokenView()) this.markdown.update(answer.text);
    this.reasoning.hidden = !answer.reasoning;
    if (answer.reasoning) this.thinking.textContent = answer.reasoning;
    if (this.pending.length) {
      this.addRecords(this.pending.map((entry) => compact(entry, this.pieces)));
      this.pending = [];
    }
  }

  /** Draw the rest, and say how it ended. */
  end(state, error = "") {
    Object.assign(this.answer, { state, error });
    this.refresh();
  }

  /** Show tokens that were stored; rubbish of imported files is left out. */
  restore(records) {
    try {
      this.addRecords(records);
    } catch {
      this.records = [];
      replace(this.tokens);
      this.element.classList.remove("has-tokens");
    }
  }

  addRecords(records) {
    this.records.push(...records);
    if (!this.view) {
      const { experts = [], bounds = {} } = this.answer;
      this.view = new TokenView({ experts, ...bounds });
      this.element.classList.add("has-tokens");
      replace(this.tokens, this.view.element);
      if (this.answer.state !== "done") this.onView(this.view);
    }
    this.view.add(records);
  }

  /** How it goes, for the status line; the rate is that of the tokens that the page has seen. */
  progress() {
    const seconds = (performance.now() - this.began) / 1000;
    const count = this.records.length;
    const drafted = this.records.filter((record) => record.draft).length;
    return `${count} tokens · ${rate(count / seconds)} tokens/s · ${drafted} of them drafted`;
  }

  /** Draw everything but the tools, which belong to the turn. */
  refresh() {
    const { answer } = this;
    const isOpen = ["waiting", "streaming"].includes(answer.state);
    this.flush();
    if (!isOpen) this.markdown.finish();
    const made = describe(answer.changes);
    replace(this.head, h("b", {}, PARTS[answer.part] ?? answer.part), ` ${answer.model} `, made);
    this.element.ariaBusy = String(isOpen);
    this.element.dataset.state = answer.state;
    const notice = answer.error || ENDS[answer.state === "stopped" ? "stopped" : answer.finish];
    this.notice.hidden = isOpen || !notice;
    this.notice.textContent = notice ?? "";
    this.notice.classList.toggle("failure", Boolean(answer.error));
    this.facts.textContent = isOpen ? "" : factsOf(answer);
  }
}

/** What an answer took, in words. */
export function factsOf({ timings, usage, nCtx, seed }) {
  const facts = [];
  if (timings) {
    facts.push(`${rate(timings.predicted_per_second)} tokens/s`);
    facts.push(`${timings.draft_n_accepted} of ${timings.draft_n} drafts accepted`);
  }
  if (usage) facts.push(contextUsed(usage.total_tokens, nCtx));
  if (seed !== undefined) facts.push(`seed ${seed}`);
  return facts.join(" · ");
}

/** How much of the context is used. */
export function contextUsed(used, nCtx) {
  return `context ${used}${nCtx ? ` of ${nCtx.toLocaleString("en")}` : ""}`;
}

/** A rate with as many digits as it deserves. */
export function rate(perSecond) {
  return Number(perSecond).toFixed(perSecond < 100 ? 1 : 0);
}

/** Whether tokens are shown instead of rendered Markdown. */
export function isTokenView() {
  return document.documentElement.dataset.tokens === "on";
}
