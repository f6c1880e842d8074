import { isTokenView, newAnswer } from "./answers.js";
import { h, replace } from "./dom.js";
import { Server } from "./server.js";
import { Settings } from "./settings.js";
import { newId, openStore } from "./store.js";
import { Strip } from "./strip.js";
import { legend } from "./tokens.js";
import { button, onEnter, TurnView } from "./turns.js";

const find = (id) => document.getElementById(id);
const root = document.documentElement;
const EXAMPLES = [
  "What is the chemical symbol of gold?",
  "Who wrote Hamlet?",
  "What do you call a young kangaroo?",
];

/** The page: conversations, the one that is shown, and the requests that run. */
class App {
  constructor(store) {
    this.store = store;
    this.strip = new Strip();
    this.turnViews = new WeakMap();
    this.running = new Map();
    this.tellAgain = 0;
    this.server = new Server((words, kind) => this.say(words, kind), find("key"));
    const changed = () => this.drawTools();
    this.settings = new Settings(find("fields"), changed, (model) => this.choose(model));
    find("legend").append(this.strip.element, legend());
  }

  async start() {
    this.listen();
    const [latest] = await this.store.conversations();
    await this.open(latest ?? fresh());
    await this.choose(localStorage.getItem("eftlocal.model"));
    find("message").focus();
  }

  /** Take another model entry for the next answers; one that the server lacks is the first. */
  async choose(model) {
    const props = await this.server.props(model).catch(() => this.server.props());
    localStorage.setItem("eftlocal.model", props.model);
    this.settings.show(props);
    this.drawTools();
    if (props.state === "loading") this.server.watch(props.model);
  }

  /** Write the status line; what changes all the time is not read aloud. */
  say(words, kind, live = "polite") {
    const line = find("status");
    line.ariaLive = live;
    line.dataset.kind = kind;
    line.textContent = words;
  }

  /** Show a conversation; answers that still come go on. */
  async open({ id, ...stored }) {
    const running = [...this.running.values()].find((run) => run.conversation.id === id);
    const conversation = running?.conversation ?? { id, ...stored };
    this.conversation = conversation;
    find("system").value = conversation.system;
    for (const turn of conversation.turns) this.settle(turn);
    this.drawTurns();
    await this.drawList();
    find("conversation").scrollTop = find("conversation").scrollHeight;
  }

  /** An answer that was cut off by the end of the page is as it was saved. */
  settle(turn) {
    for (const answer of turn.answers) {
      const isOpen = ["waiting", "streaming"].includes(answer.state);
      if (isOpen && !this.running.has(answer.id)) answer.state = "stopped";
    }
  }

  async save(conversation = this.conversation) {
    if (!conversation.turns.length) return;
    await this.store.save(conversation).catch(() => {
      this.say("This browser cannot keep it: its storage is full, or switched off.", "trouble");
    });
  }

  /** Ask a question at the end of the conversation. */
  ask(question, withParts, others = []) {
    const { conversation } = this;
    conversation.title ||= question.slice(0, 80);
    const turn = { question, answers: [], shown: [], chosen: 0, others };
    conversation.turns.push(turn);
    this.drawTurns();
    this.answer(turn, { part: "fused" });
    if (withParts) this.compare(turn, 0);
    find("conversation").scrollTop = find("conversation").scrollHeight;
  }

  /** Ask another question in a turn's place; it and what followed become its earlier version. */
  edit(turn, question) {
    const tail = this.cut(turn);
    const others = [tail, ...turn.others];
    turn.others = [];
    this.ask(question, false, others);
  }

  /** Bring the earlier version of a question back, in turns where there are several. */
  swapVersion(turn) {
    const tail = this.cut(turn);
    const [next, ...others] = turn.others;
    turn.others = [];
    next[0].others = [...others, tail];
    this.conversation.turns.push(...next);
    this.save();
    this.drawTurns();
  }

  cut(turn) {
    const { turns } = this.conversation;
    return turns.splice(turns.indexOf(turn));
  }

  /** Answer once more: in the answer's place, or beside it where something would be covered. */
  again(turn, place) {
    const isLast = turn === this.conversation.turns.at(-1);
    const isChanged = this.isChanged(turn.answers[place]);
    const added = this.answer(turn, { part: "fused" });
    if (isLast && !isChanged) this.turnViews.get(turn).show([], added);
    else this.turnViews.get(turn).show([place, added], turn.chosen);
  }

  /** Put the answers of the tuned model and of the base alone beside an answer. */
  compare(turn, place) {
    const { changes, model } = turn.answers[place];
    const parts = ["tuned", "base"].map((part) => this.answer(turn, { part, changes, model }));
    this.turnViews.get(turn).show([place, ...parts], turn.chosen);
  }

  /** Whether the settings are others than those that an answer was made with. */
  isChanged({ model, changes }) {
    const { settings } = this;
    return model !== settings.model || JSON.stringify(changes) !== JSON.stringify(settings.changes);
  }

  /** Let one more answer of a turn come; returns its place among the turn's answers. */
  answer(turn, { part, changes = this.settings.changes, model = this.settings.model }) {
    const { conversation } = this;
    const made = { model, changes: { ...changes }, part, props: this.settings.props };
    const answer = newAnswer(newId(), made);
    const place = turn.answers.push(answer) - 1;
    const body = { model, messages: messagesOf(conversation, turn), ...answer.changes };
    // Without distributions tokens still have their alphas, and are counted.
    body[isTokenView() ? "trace" : "alphas"] = true;
    if (part !== "fused") body.part = part;
    const turnView = this.turnViews.get(turn);
    turnView.draw();
    this.run(conversation, turnView, turnView.view(answer), body);
    return place;
  }

  async run(conversation, turnView, view, body) {
    const stop = new AbortController();
    this.running.set(view.answer.id, { stop, conversation });
    this.drawBusy();
    let [savedAt, savedTokens] = [Date.now(), 0];
    const keep = () => {
      const from = savedTokens;
      [savedAt, savedTokens] = [Date.now(), view.records.length];
      const records = view.records.slice(from);
      if (records.length) this.store.saveTokens(view.answer.id, from, records).catch(() => {});
      return this.save(conversation);
    };
    const frame = () => {
      if (!this.running.has(view.answer.id)) return;
      this.flush(view);
      if (Date.now() - savedAt > 1000) keep();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    await keep();
    await this.drawList();
    await this.server.answer(view, body, stop.signal);
    this.running.delete(view.answer.id);
    await keep();
    turnView.draw();
    this.drawBusy();
  }

  /** Draw what has come, and keep the end of the conversation in sight where it was. */
  flush(view) {
    const place = find("conversation");
    const isAtEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 60;
    view.flush();
    if (isAtEnd) place.scrollTop = place.scrollHeight;
    if (view.answer.state !== "streaming" || performance.now() < this.tellAgain) return;
    this.tellAgain = performance.now() + 250;
    this.say(view.progress(), "busy", "off");
  }

  stop() {
    for (const { stop } of this.running.values()) stop.abort();
  }

  drawBusy() {
    find("stop").hidden = !this.running.size;
  }

  drawTools() {
    for (const turn of this.conversation.turns) this.turnViews.get(turn).drawTools();
  }

  drawTurns() {
    const { turns } = this.conversation;
    for (const turn of turns) {
      if (!this.turnViews.has(turn)) this.turnViews.set(turn, new TurnView(turn, this));
      this.turnViews.get(turn).drawQuestion();
    }
    find("welcome").hidden = turns.length > 0;
    replace(find("turns"), ...turns.map((turn) => this.turnViews.get(turn).element));
  }

  async drawList() {
    const rows = (await this.store.conversations()).map((conversation) => {
      const isShown = conversation.id === this.conversation.id;
      const open = () => isShown || this.open(conversation);
      const remove = () => this.remove(conversation);
      const title = button(conversation.title, open, { "aria-current": isShown });
      const label = `Delete ${conversation.title}`;
      return h("li", {}, title, button("×", remove, { "aria-label": label, title: label }));
    });
    replace(find("list"), ...rows);
  }

  async remove(conversation) {
    if (!confirm(`Delete "${conversation.title}" for good?`)) return;
    await this.store.remove(conversation);
    if (conversation.id === this.conversation.id) await this.open(fresh());
    await this.drawList();
  }

  async import(file) {
    try {
      const count = await this.store.import(await file.text());
      this.say(`${count} conversations were imported.`, "ready");
    } catch (error) {
      this.say(error.message, "trouble");
    }
    await this.drawList();
  }

  async export() {
    const url = URL.createObjectURL(new Blob([await this.store.export()]));
    h("a", { href: url, download: "eftlocal-conversations.json" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  listen() {
    const message = find("message");
    const send = () => {
      if (!message.value.trim() || !this.settings.props) return;
      if (this.running.size) return this.say("An answer still comes. Wait for it, or stop it.", "busy");
      this.ask(message.value.trim(), find("parts").checked);
      message.value = "";
      return null;
    };
    onEnter(message, send, () => this.stop());
    find("send").onclick = send;
    find("stop").onclick = () => this.stop();
    find("new").onclick = () => this.open(fresh()).then(() => message.focus());
    find("export").onclick = () => this.export();
    find("pick").onclick = () => find("import").click();
    find("import").onchange = ({ target }) => this.import(target.files[0]);
    find("system").oninput = ({ target }) => {
      this.conversation.system = target.value;
      this.save();
    };
    toggles("conversations", "90rem");
    toggles("settings", "70rem");
    remembers("tokens", () => this.conversation.turns.map((turn) => this.turnViews.get(turn).draw()));
    remembers("parts", () => {});
    for (const input of document.querySelectorAll("[name=colour]")) remembersColour(input);
    for (const question of EXAMPLES) {
      find("examples").append(button(question, () => this.ask(question, true)));
    }
  }
}

function fresh() {
  return { id: newId(), title: "", system: "", created: Date.now(), turns: [] };
}

/** What the models have read before a turn's question, and the question. */
function messagesOf({ system, turns }, turn) {
  const before = turns.slice(0, turns.indexOf(turn)).flatMap(({ question, answers, chosen }) => {
    const content = answers[chosen]?.text;
    // Templates want questions and answers in turns: a question without an answer is left out.
    const pair = [{ role: "user", content: question }, { role: "assistant", content }];
    return content ? pair : [];
  });
  const opening = system.trim() ? [{ role: "system", content: system.trim() }] : [];
  return [...opening, ...before, { role: "user", content: turn.question }];
}

/** A button that opens and closes a panel; on narrow screens it is closed at first. */
function toggles(name, width) {
  const [panel, opener] = [find(name), find(`show-${name}`)];
  const set = (isOpen) => {
    panel.hidden = !isOpen;
    opener.setAttribute("aria-expanded", String(isOpen));
  };
  const wide = matchMedia(`(min-width: ${width})`);
  wide.onchange = () => set(wide.matches);
  set(wide.matches);
  opener.onclick = () => set(panel.hidden);
  panel.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !matchMedia("(max-width: 70rem)").matches) return;
    set(false);
    opener.focus();
  });
}

/** A switch whose state is kept, and known to the style sheet. */
function remembers(name, onchange) {
  const input = find(name);
  const kept = localStorage.getItem(`eftlocal.${name}`);
  const apply = () => (root.dataset[name] = input.checked ? "on" : "off");
  if (kept) input.checked = kept === "on";
  apply();
  input.onchange = () => {
    localStorage.setItem(`eftlocal.${name}`, apply());
    onchange();
  };
}

function remembersColour(input) {
  const kept = localStorage.getItem("eftlocal.colour") ?? "variation";
  const apply = () => (root.dataset.colour = input.value);
  input.checked = input.value === kept;
  if (input.checked) apply();
  input.onchange = () => localStorage.setItem("eftlocal.colour", apply());
}

new App(await openStore()).start();
