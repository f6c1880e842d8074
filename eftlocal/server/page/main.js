import { isOpen, isTokenView, newAnswer } from "./answers.js";
import { fresh, messagesOf, newId } from "./conversation.js";
import { remembers, remembersColour, toggles } from "./controls.js";
import { replace } from "./dom.js";
import { List } from "./list.js";
import { Server } from "./server.js";
import { Settings } from "./settings.js";
import { kept, openStore } from "./store.js";
import { Strip } from "./strip.js";
import { legend } from "./tokens.js";
import { button, onEnter, TurnView } from "./turns.js";

const find = (id) => document.getElementById(id);
const EXAMPLES = [
  "What is the chemical symbol of gold?",
  "Who wrote Hamlet?",
  "What do you call a young kangaroo?",
];
const SECONDS_PER_SAVE = 1;
const SECONDS_PER_RATE = 0.25;

/** The page: conversations, the one that is shown, and the requests that run. */
class App {
  constructor(store) {
    this.store = store;
    this.strip = new Strip();
    this.turnViews = new WeakMap();
    this.tellAgain = 0;
    this.latest = null;
    this.runs = new Map(); // id of an answer -> { stop, conversation, view }
    this.conversation = fresh();
    this.list = new List(find("conversations"), this);
    this.server = new Server((words, kind) => this.say(words, kind), find("key"));
    const changed = () => this.drawTools();
    this.settings = new Settings(find("fields"), changed, (model) => this.choose(model));
  }

  async start() {
    this.listen();
    this.draw();
    const [latest] = await this.store.conversations();
    // A conversation that cannot be shown must not keep the others from being reached.
    if (latest) await this.open(latest.id).catch(() => this.show(fresh()));
    await this.list.draw();
    find("message").focus();
    await this.choose(kept("model"));
  }

  /** Take another model entry for the next answers; one that the server lacks is the first. */
  async choose(model) {
    this.wanted = model;
    try {
      const props = await this.server.props(model).catch(() => this.server.props());
      if (this.wanted !== model) return;
      kept("model", props.model);
      this.settings.show(props);
      this.drawTools();
      this.server.watch(props.model);
    } catch (error) {
      this.say(`${error.message}; ask something to try again`, "trouble");
    }
  }

  /** Write the status line; what changes all the time is not read aloud. */
  say(words, kind, live = "polite") {
    const line = find("status");
    line.ariaLive = live;
    line.dataset.kind = kind;
    line.textContent = words;
  }

  /** Show a conversation of the store, or the one that its answers still come for. */
  async open(id) {
    const running = [...this.runs.values()].find(({ conversation }) => conversation.id === id);
    this.show(running?.conversation ?? (await this.store.conversation(id)));
    await this.list.draw();
  }

  show(conversation) {
    for (const turn of this.conversation.turns) this.turnViews.get(turn)?.leave();
    this.conversation = conversation;
    find("system").value = conversation.system;
    this.strip.element.hidden = true;
    for (const answer of conversation.turns.flatMap((turn) => turn.answers)) {
      // It was cut off by the end of the page, and is as it was saved.
      if (isOpen(answer) && !this.runs.has(answer.id)) answer.state = "stopped";
    }
    this.draw();
    this.scrollToEnd();
    if (matchMedia("(max-width: 70rem)").matches) find("show-conversations").closePanel();
  }

  /** End what runs of a conversation that is to be deleted, and show another one. */
  leave(id) {
    const runs = [...this.runs.values()].filter(({ conversation }) => conversation.id === id);
    for (const { stop } of runs) stop.abort();
    if (id === this.conversation.id) this.show(fresh());
  }

  scrollToEnd() {
    const place = find("conversation");
    if (this.conversation.turns.length) place.scrollTop = place.scrollHeight;
  }

  save(conversation = this.conversation) {
    if (!conversation.turns.length) return Promise.resolve();
    return this.store.save(conversation).catch(() => {
      this.say("This browser cannot keep it: its storage is full, or switched off.", "trouble");
    });
  }

  /** Whether something can be asked now; says why where it cannot. */
  isReady() {
    const runs = [...this.runs.values()];
    if (!this.settings.props) this.choose(kept("model"));
    else if (!runs.some(({ conversation }) => conversation === this.conversation)) return true;
    else {
      this.tellAgain = performance.now() + 3000;
      this.say("An answer still comes. Wait for it, or stop it.", "busy");
    }
    return false;
  }

  /** Ask a question at the end of the conversation. */
  ask(question, withParts = find("parts").checked, others = []) {
    const { conversation } = this;
    conversation.title ||= question.slice(0, 80);
    const turn = { question, answers: [], shown: [], chosen: 0, others };
    conversation.turns.push(turn);
    this.draw();
    this.answer(turn, this.present("fused"));
    if (withParts) this.compare(turn, 0);
    find("message").focus();
    this.scrollToEnd();
  }

  /** Ask another question in a turn's place; it and what followed become its earlier version. */
  edit(turn, question) {
    if (!this.isReady()) return;
    const tail = this.cut(turn);
    const others = [tail, ...turn.others];
    turn.others = [];
    this.ask(question, undefined, others);
  }

  /** Bring the earlier version of a question back, in turns where there are several. */
  swapVersion(turn) {
    const tail = this.cut(turn);
    const [next, ...others] = turn.others;
    turn.others = [];
    next[0].others = [...others, tail];
    this.conversation.turns.push(...next);
    this.save();
    this.draw();
    this.turnViews.get(next[0]).question.querySelector("button").focus();
  }

  cut(turn) {
    const { turns } = this.conversation;
    return turns.splice(turns.indexOf(turn));
  }

  /** Answer once more: in the answer's place, or beside it where something would be covered. */
  again(turn, place) {
    if (!this.isReady()) return;
    const isLast = turn === this.conversation.turns.at(-1);
    const isChanged = this.isChanged(turn.answers[place]);
    const shown = turn.shown.length ? turn.shown : [place];
    const added = this.answer(turn, this.present("fused"));
    const covers = isLast && !isChanged && shown.length === 1;
    this.turnViews.get(turn).show(covers ? [] : [...shown, added], covers ? added : turn.chosen);
  }

  /** Put the answers of the tuned model and of the base alone beside an answer. */
  async compare(turn, place) {
    const { changes, model } = turn.answers[place];
    const props = model === this.settings.model ? this.settings.props : await this.propsOf(model);
    if (!props) return;
    const made = ["tuned", "base"].map((part) => ({ part, changes, model, props }));
    const parts = made.map((each) => this.answer(turn, each));
    this.turnViews.get(turn).show([place, ...parts], turn.chosen);
  }

  propsOf(model) {
    return this.server.props(model).catch((error) => this.say(error.message, "trouble"));
  }

  /** Whether the settings are others than those that an answer was made with. */
  isChanged({ model, changes }) {
    const told = (settings) => JSON.stringify(Object.entries(settings).sort());
    return model !== this.settings.model || told(changes) !== told(this.settings.changes);
  }

  /** How an answer of a part would be made with the present settings. */
  present(part) {
    const { changes, model, props } = this.settings;
    return { part, changes: { ...changes }, model, props };
  }

  /** Let one more answer of a turn come; returns its place among the turn's answers. */
  answer(turn, made) {
    const { conversation } = this;
    const { changes, model, part } = made;
    const answer = newAnswer(newId(), made);
    const place = turn.answers.push(answer) - 1;
    const body = { ...changes, model, messages: messagesOf(conversation, turn) };
    // Without distributions tokens still have their alphas, and are counted.
    body[isTokenView() ? "trace" : "alphas"] = true;
    if (part !== "fused") body.part = part;
    const turnView = this.turnViews.get(turn);
    turnView.draw();
    this.run(conversation, turnView, turnView.view(answer), body);
    return place;
  }

  async run(conversation, turnView, view, body) {
    const { id } = view.answer;
    const stop = new AbortController();
    this.runs.set(id, { stop, conversation, view });
    this.drawBusy();
    let saved = 0;
    const keep = () => {
      view.flush();
      const records = view.records.slice(saved);
      if (records.length) this.store.saveTokens(id, saved, records).catch(() => {});
      saved += records.length;
      return this.save(conversation);
    };
    // Hidden tabs have no frames, but what comes has to be kept all the same.
    const timer = setInterval(keep, 1000 * SECONDS_PER_SAVE);
    const frame = () => {
      if (!this.runs.has(id)) return;
      this.atEnd(() => view.flush());
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    try {
      keep().then(() => this.list.draw());
      await this.server.answer(view, body, stop.signal);
    } finally {
      clearInterval(timer);
      this.runs.delete(id);
      keep().then(() => this.list.draw());
      this.atEnd(() => turnView.draw());
      this.drawBusy();
      this.tellEnd(view);
    }
  }

  /** Draw something, and keep the end of the conversation in sight where it was. */
  atEnd(draw) {
    const place = find("conversation");
    const isAtEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 60;
    draw();
    if (isAtEnd) this.scrollToEnd();
    this.tellProgress();
  }

  /** Say how the first answer of this conversation goes that has begun. */
  tellProgress() {
    const isMine = ({ conversation }) => conversation === this.conversation;
    const mine = [...this.runs.values()].filter(isMine).map(({ view }) => view);
    const view = mine.find(({ records }) => records.length);
    if (!view || performance.now() < this.tellAgain) return;
    this.tellAgain = performance.now() + 1000 * SECONDS_PER_RATE;
    this.say(view.progress(), "busy", "off");
  }

  /** When nothing runs any more, say what the fused answer took, or how the server is. */
  tellEnd({ answer }) {
    if (answer.part === "fused" || !this.latest) this.latest = answer;
    if (this.runs.size) return;
    const { model, facts, state } = this.latest;
    this.latest = null;
    if (state !== "done") this.server.watch(model);
    else this.say(`Ready: ${model} · ${facts}`, "ready");
  }

  stop() {
    for (const { stop } of this.runs.values()) stop.abort();
  }

  drawBusy() {
    find("stop").hidden = !this.runs.size;
  }

  drawTools() {
    for (const turn of this.conversation.turns) this.turnViews.get(turn)?.drawTools();
  }

  draw() {
    const { turns } = this.conversation;
    for (const turn of turns) {
      if (!this.turnViews.has(turn)) this.turnViews.set(turn, new TurnView(turn, this));
      this.turnViews.get(turn).drawQuestion();
    }
    find("welcome").hidden = turns.length > 0;
    find("legend").hidden = !turns.length;
    replace(find("turns"), ...turns.map((turn) => this.turnViews.get(turn).element));
  }

  /** Show the chart of an answer's tokens, and what their colours mean. */
  follow(tokens) {
    const isShown = tokens === this.strip.view && !this.strip.element.hidden;
    if (!tokens.element.isConnected || isShown) return;
    this.strip.follow(tokens);
    replace(find("legend"), this.strip.element, legend(tokens));
  }

  listen() {
    const message = find("message");
    const send = () => {
      const question = message.value.trim();
      if (!question || !this.isReady()) return;
      message.value = "";
      this.ask(question);
    };
    const stop = () => {
      this.stop();
      message.focus();
    };
    onEnter(message, send, stop);
    find("send").onclick = send;
    find("stop").onclick = stop;
    find("new").onclick = () => {
      this.show(fresh());
      this.list.draw();
      message.focus();
    };
    find("system").oninput = ({ target }) => {
      this.conversation.system = target.value;
      this.save();
    };
    document.addEventListener("visibilitychange", () => {
      const { model } = this.settings;
      if (model && !document.hidden && !this.runs.size) this.server.watch(model);
    });
    toggles("conversations", "90rem");
    toggles("settings", "70rem");
    remembers("tokens", () => {
      for (const turn of this.conversation.turns) this.turnViews.get(turn).draw();
    });
    remembers("parts");
    for (const input of document.querySelectorAll("[name=colour]")) remembersColour(input);
    for (const question of EXAMPLES) {
      find("examples").append(button(question, () => this.isReady() && this.ask(question, true)));
    }
  }
}

new App(await openStore()).start();
