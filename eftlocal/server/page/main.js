import { isOpen, isTokenView, newAnswer } from "./answers.js";
import { answersOf, fresh, messagesOf, newId } from "./conversation.js";
import { remembers, remembersColour, toggles } from "./controls.js";
import { find, replace } from "./dom.js";
import { List } from "./list.js";
import { Runs } from "./runs.js";
import { Server } from "./server.js";
import { Settings } from "./settings.js";
import { kept, openStore } from "./store.js";
import { Strip } from "./strip.js";
import { legend } from "./tokens.js";
import { button, onEnter, TurnView } from "./turns.js";

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
    this.runs = new Runs(this);
    this.conversation = fresh();
    this.list = new List(find("conversations"), this);
    // While answers come, they have the status line.
    const say = (words, kind) => (kind === "ready" && this.runs.all.size) || this.say(words, kind);
    this.server = new Server(say, find("key"));
    const changed = () => this.drawTools();
    this.settings = new Settings(find("fields"), changed, (model) => this.choose(model));
  }

  async start() {
    this.listen();
    this.draw();
    const [latest] = await this.store.conversations().catch(() => []);
    // A conversation that cannot be shown must not keep the others from being reached.
    if (latest) await this.open(latest.id).catch(() => this.show(fresh()));
    await this.list.draw();
    find("message").focus();
    await this.choose(kept("model"));
  }

  /** Take another model entry for the next answers; one that the server lacks is the first. */
  async choose(model) {
    this.wanted = model;
    find("fields").inert = true;
    try {
      const props = await this.server.props(model).catch((error) => {
        if (!model || ![400, 404].includes(error.status)) throw error;
        return this.server.props();
      });
      if (this.wanted !== model) return;
      kept("model", props.model);
      this.settings.show(props);
      this.drawTools();
      this.server.watch(props.model, props);
    } catch (error) {
      this.say(`${error.message}; ask something to try again`, "trouble");
    } finally {
      if (this.wanted === model) find("fields").inert = false;
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
    const [running] = this.runs.of(id);
    const stored = await this.store.conversation(id).catch(() => null);
    if (running || stored) this.show(running?.conversation ?? stored);
    else this.say("That conversation is not there any more.", "trouble");
    await this.list.draw();
  }

  show(conversation) {
    for (const turn of this.conversation.turns) this.turnViews.get(turn)?.leave();
    this.conversation = conversation;
    find("system").value = conversation.system;
    this.strip.element.hidden = true;
    for (const answer of answersOf(conversation.turns)) {
      // It was cut off by the end of the page, and is as it was saved.
      if (isOpen(answer) && !this.runs.all.has(answer.id)) answer.state = "stopped";
    }
    this.draw();
    this.runs.drawBusy();
    this.scrollToEnd();
    const last = conversation.turns.at(-1);
    const answer = last?.answers[last.shown[0] ?? last.chosen];
    const tokens = answer && this.turnViews.get(last).view(answer).view;
    if (tokens) this.follow(tokens);
    if (!matchMedia("(max-width: 70rem)").matches) return;
    find("show-conversations").closePanel();
    find("message").focus();
  }

  /** End what runs of a conversation that is to be deleted, and show another one. */
  leave(id) {
    this.runs.stop(id);
    if (id === this.conversation.id) this.show(fresh());
  }

  scrollToEnd() {
    const place = find("conversation");
    place.scrollTop = this.conversation.turns.length ? place.scrollHeight : 0;
    this.isAtEnd = true;
  }

  save(conversation = this.conversation) {
    if (!conversation.turns.length && !conversation.system) return Promise.resolve();
    return this.store.save(conversation).catch(() => {
      this.say("This browser cannot keep it: its storage is full, or switched off.", "trouble");
    });
  }

  /** Whether something can be asked now; says why where it cannot. */
  isReady() {
    if (!this.settings.props) {
      this.choosing ??= this.choose(kept("model")).finally(() => (this.choosing = null));
      return false;
    }
    const isFree = !this.runs.of(this.conversation.id).length;
    if (!isFree) this.runs.refuse();
    return isFree;
  }

  /** Ask a question at the end of the conversation. */
  ask(question, withParts = find("parts").checked, others = []) {
    const { conversation } = this;
    conversation.title ||= question.slice(0, 80);
    const turn = { question, answers: [], shown: [], chosen: 0, others };
    conversation.turns.push(turn);
    this.draw();
    this.answer(turn, this.present("fused"));
    this.scrollToEnd();
    if (withParts) this.compare(turn, 0);
    find("message").focus();
  }

  /** Ask another question in a turn's place; it and what followed become its earlier version. */
  edit(turn, question) {
    if (!this.isReady()) return;
    this.turnViews.get(turn).drawQuestion();
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
    const tail = turns.splice(turns.indexOf(turn));
    for (const each of tail) this.turnViews.get(each)?.leave();
    return tail;
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
    const { conversation } = this;
    const props = model === this.settings.model ? this.settings.props : await this.propsOf(model);
    const hasParts = turn.shown.some((shown) => turn.answers[shown].part !== "fused");
    if (!props || hasParts || conversation !== this.conversation) return;
    const made = ["tuned", "base"].map((part) => ({ part, changes, model, props }));
    const parts = made.map((each) => this.answer(turn, each));
    this.atEnd(() => this.turnViews.get(turn).show([place, ...parts], turn.chosen));
  }

  propsOf(model) {
    return this.server.props(model).catch((error) => this.say(error.message, "trouble"));
  }

  /** Whether the settings are others than those that an answer was made with. */
  isChanged({ model, changes }) {
    const names = (settings) => [settings, settings.weight ?? {}].flatMap(Object.keys).sort();
    const told = (settings) => JSON.stringify(settings, names(settings));
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
    this.runs.start(conversation, turnView, turnView.view(answer), body);
    return place;
  }

  /** Draw something, and keep the end of the conversation in sight where it was. */
  atEnd(draw) {
    draw();
    if (this.isAtEnd) this.scrollToEnd();
    this.runs.tellProgress();
  }

  drawTools() {
    for (const turn of this.conversation.turns) this.turnViews.get(turn)?.drawTools();
  }

  draw() {
    const { turns } = this.conversation;
    for (const turn of turns) {
      if (!this.turnViews.has(turn)) this.turnViews.set(turn, new TurnView(turn, this));
      this.turnViews.get(turn).refreshQuestion();
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
    const place = find("conversation");
    place.onscroll = () => {
      this.isAtEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 60;
    };
    const send = () => {
      const question = message.value.trim();
      if (!question || !this.isReady()) return;
      message.value = "";
      this.ask(question);
    };
    const stop = () => {
      this.runs.stop(this.conversation.id);
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
      if (model && !document.hidden && !this.runs.all.size) this.server.watch(model);
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
