import { h, replace } from "./dom.js";
import { describe, fusionOf, speakerOf } from "./fusion.js";
import { Markdown } from "./markdown.js";
import { TokenView } from "./tokens.js";
import { compact } from "./trace.js";

const ENDS = {
  length: "It ends here because the context, or the number of tokens asked for, is used up.",
  stopped: "Stopped.",
};

/** A new answer, to be stored; what it is made with does not change any more. */
export function newAnswer(id, { model, changes, part, props }) {
  const fusion = fusionOf(props, changes, part);
  return { id, model, changes, part, fusion, ...blank() };
}

/** Whether an answer still comes. */
export function isOpen({ state }) {
  return state === "waiting" || state === "streaming";
}

function blank() {
  return { state: "waiting", text: "", reasoning: "", error: "", finish: "", facts: "" };
}

/** Shows one answer while it comes and afterwards. */
export class AnswerView {
  /**
   * @param answer is filled in as chunks come.
   * @param onView called when somebody looks at its tokens.
   */
  constructor(answer, onView) {
    this.answer = answer;
    this.onView = () => this.view && onView(this.view);
    this.speaker = speakerOf(answer.part, answer.fusion);
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
    const below = [this.notice, this.facts, this.compared, this.tools];
    const follow = { onpointerenter: this.onView, onfocusin: this.onView };
    const parts = [this.head, body, this.tokens, ...below];
    this.element = h("article", { class: "answer", ...follow }, ...parts);
    this.refresh();
  }

  /** The element whose text is compared with other answers'. */
  get shownText() {
    return this.view && isTokenView() ? this.tokens : this.markdown.element;
  }

  /** Begin anew, where a request is sent again. */
  clear() {
    Object.assign(this.answer, blank());
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
    this.timings = chunk.timings ?? this.timings;
    this.usage = chunk.usage ?? this.usage;
    this.seed = chunk.eft?.seed ?? this.seed;
    this.pending.push(...tokens);
  }

  /** Draw what has come; what is hidden waits until it is shown. */
  flush() {
    const { answer } = this;
    this.element.dataset.state = answer.state;
    if (this.pending.length) {
      this.addRecords(this.pending.map((entry) => compact(entry, this.pieces)));
      this.pending = [];
    }
    if (!this.view || !isTokenView()) this.markdown.update(answer.text);
    this.reasoning.hidden = !answer.reasoning;
    if (answer.reasoning) this.thinking.textContent = answer.reasoning;
  }

  /** Draw the rest, and say how it ended. */
  end(state, error = "") {
    Object.assign(this.answer, { state, error, facts: this.spent() });
    this.refresh();
  }

  /** Show more tokens, such as those that were stored. */
  addRecords(records) {
    for (const record of records) this.records.push(record);
    if (!this.view) {
      this.view = new TokenView({ ...this.answer.fusion, speaker: this.speaker });
      this.element.classList.add("has-tokens");
      replace(this.tokens, this.view.element);
      if (isOpen(this.answer) && this.answer.part === "fused") this.onView();
    }
    this.view.add(records);
  }

  /** How it goes, for the status line; the rate is that of the tokens that the page has seen. */
  progress() {
    const seconds = Math.max(0.1, (performance.now() - this.began) / 1000);
    const count = this.records.length;
    const drafted = this.records.filter((record) => record.draft).length;
    return `Answering: ${count} tokens · ${rate(count / seconds)} tokens/s · ${drafted} drafted`;
  }

  /** What it took, in words. */
  spent() {
    const { timings, usage, seed } = this;
    const { nCtx } = this.answer.fusion;
    const facts = [];
    if (timings) {
      facts.push(`${rate(timings.predicted_per_second)} tokens/s`);
      facts.push(`${timings.draft_n_accepted} of ${timings.draft_n} drafts accepted`);
    }
    const most = nCtx ? ` of ${nCtx.toLocaleString("en")}` : "";
    if (usage) facts.push(`context ${usage.total_tokens.toLocaleString("en")}${most}`);
    if (seed !== undefined) facts.push(`seed ${seed}`);
    return facts.join(" · ");
  }

  /** Draw everything but the tools, which belong to the turn. */
  refresh() {
    const { answer } = this;
    this.flush();
    if (!isOpen(answer)) this.markdown.finish();
    replace(this.head, h("b", {}, this.speaker), ` ${answer.model} `, describe(answer.changes));
    this.element.ariaBusy = String(isOpen(answer));
    const end = answer.state === "stopped" ? "stopped" : answer.finish;
    const notice = answer.error || (Object.hasOwn(ENDS, end) && ENDS[end]);
    this.notice.hidden = isOpen(answer) || !notice;
    this.notice.textContent = notice || "";
    this.notice.classList.toggle("failure", Boolean(answer.error));
    this.facts.textContent = isOpen(answer) ? "" : answer.facts;
  }
}

/** A rate with as many digits as it deserves. */
function rate(perSecond) {
  return Number(perSecond).toFixed(perSecond < 100 ? 1 : 0);
}

/** Whether tokens are shown instead of rendered Markdown. */
export function isTokenView() {
  return document.documentElement.dataset.tokens === "on";
}
