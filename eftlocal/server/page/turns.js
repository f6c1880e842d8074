import { AnswerView, isOpen, isTokenView } from "./answers.js";
import { clearDifferences, markDifferences } from "./diff.js";
import { h, keepFocus, replace } from "./dom.js";
import { copyText } from "./markdown.js";

/** One question and its answers; several of them stand side by side where `turn.shown` says so. */
export class TurnView {
  /** @param app answers, saves, and knows the settings; see App in main.js. */
  constructor(turn, app) {
    this.turn = turn;
    this.app = app;
    this.views = new Map();
    this.question = h("div", { class: "question" });
    this.columns = h("div", { class: "columns" });
    this.pages = h("p", { class: "tools" });
    const label = "Question and answers";
    this.element = h("section", { class: "turn", "aria-label": label, tabindex: -1 });
    this.element.append(this.question, this.columns, this.pages);
    this.drawQuestion();
    this.draw();
  }

  /** The view of an answer; its tokens are read from the store when it is first shown. */
  view(answer) {
    let view = this.views.get(answer.id);
    if (!view) {
      view = new AnswerView(answer, (tokens) => this.app.follow(tokens));
      this.views.set(answer.id, view);
      if (answer.state === "waiting") return view;
      this.app.store.tokens(answer.id).then((records) => {
        if (records.length) view.addRecords(records);
        const isLatest = this.turn === this.app.conversation.turns.at(-1);
        if (view.view && isLatest && answer === this.shown[0]) this.app.follow(view.view);
        this.drawTools();
        this.drawDifferences();
      }, () => {});
    }
    return view;
  }

  get shown() {
    const { answers, shown, chosen } = this.turn;
    return (shown.length ? shown : [chosen]).map((place) => answers[place]).filter(Boolean);
  }

  /** Draw all but the question again; answers keep their elements. */
  draw() {
    const views = this.shown.map((answer) => this.view(answer));
    for (const view of views) view.refresh();
    keepFocus(this.element, () => {
      const elements = views.map((view) => view.element);
      const isSame = elements.length === this.columns.children.length;
      // An element that is put in anew loses its scrolling, and an open card.
      if (!isSame || elements.some((each, i) => each !== this.columns.children[i])) {
        replace(this.columns, ...elements);
      }
      this.columns.classList.toggle("side-by-side", views.length > 1);
      this.drawTools();
      this.drawPages();
    });
    this.drawDifferences();
  }

  /** Forget the marks, when the turn is not shown any more. */
  leave() {
    clearDifferences(this);
  }

  /** Draw the question again, unless it is just being edited. */
  refreshQuestion() {
    if (!this.question.querySelector("textarea")) this.drawQuestion();
  }

  drawQuestion() {
    const { turn } = this;
    const edit = button("Edit", () => this.edit());
    const others = button("Earlier version", () => this.app.swapVersion(turn));
    const tools = h("div", { class: "tools" }, edit, turn.others.length ? others : null);
    replace(this.question, h("p", { class: "words" }, turn.question), tools);
  }

  edit() {
    const field = h("textarea", { "aria-label": "Question", rows: 3 });
    field.value = this.turn.question;
    const send = () => field.value.trim() && this.app.edit(this.turn, field.value.trim());
    const cancel = () => {
      this.drawQuestion();
      this.question.querySelector("button").focus();
    };
    onEnter(field, send, cancel);
    const tools = h("div", { class: "tools" }, button("Send", send), button("Cancel", cancel));
    replace(this.question, field, tools);
    field.focus();
  }

  drawTools() {
    for (const answer of this.shown) this.drawToolsOf(answer);
  }

  drawToolsOf(answer) {
    const { turn, app } = this;
    const view = this.view(answer);
    const place = turn.answers.indexOf(answer);
    const copy = button("Copy answer", ({ target }) => copyText(target, answer.text));
    const again = app.isChanged(answer) ? "Answer again with these settings" : "Answer again";
    const hasParts = turn.shown.some((other) => turn.answers[other].part !== "fused");
    const tools = [copy];
    if (answer.part === "fused") {
      tools.push(button(again, () => app.again(turn, place)));
      if (!hasParts) tools.push(button("Compare with its parts", () => app.compare(turn, place)));
    }
    if (turn.shown.length > 1) {
      tools.push(button("Show only this", () => this.show([place], place)));
      const next = h("span", { class: "soft" }, "the next question follows this one");
      if (turn.chosen === place) tools.push(next);
      else tools.push(button("Go on with this", () => this.show(turn.shown, place)));
    }
    const isTraced = view.records.some((record) => record.models);
    const lack = "What the models wanted was not asked for then. Answer again to see it.";
    const note = isTokenView() && answer.text && !isTraced ? h("p", {}, lack) : null;
    replace(view.tools, ...(isOpen(answer) ? [] : [...tools, note]));
  }

  show(places, chosen) {
    Object.assign(this.turn, { shown: places.length > 1 ? places : [], chosen });
    this.app.save();
    this.draw();
  }

  /** Leaf through answers where one of several is shown. */
  drawPages() {
    const { answers, shown, chosen } = this.turn;
    const count = answers.length;
    const turnTo = (step) => () => this.show([], (chosen + step + count) % count);
    const all = button("Side by side", () => this.show(answers.map((_, place) => place), chosen));
    const leaf = [
      button("Previous", turnTo(-1)),
      h("span", { class: "soft" }, `answer ${chosen + 1} of ${count}`),
      button("Next", turnTo(1)),
      count < 5 ? all : null,
    ];
    replace(this.pages, ...(count > 1 && shown.length < 2 ? leaf : []));
  }

  /** Mark the words in which answers differ, when all of them are there. */
  drawDifferences() {
    const shown = this.shown;
    if (shown.some(isOpen) || !this.element.isConnected) return;
    const views = shown.map((answer) => this.view(answer));
    const texts = shown.length > 1 ? views.map((view) => view.shownText) : [];
    const counts = markDifferences(texts, this);
    for (const [place, { differing, words }] of counts.entries()) {
      const text = `${differing} of ${words} words differ (underlined)`;
      views[place].compared.textContent = place ? text : "the others are compared with it";
    }
    if (shown.length < 2) for (const view of views) view.compared.textContent = "";
  }
}

/** A button that does something. */
export function button(label, onclick, props = {}) {
  return h("button", { type: "button", onclick, ...props }, label);
}

/** Enter sends, Shift+Enter is a new line, Escape does what `cancel` says. */
export function onEnter(field, send, cancel) {
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") cancel();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
}
