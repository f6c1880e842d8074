import { find } from "./dom.js";

const SECONDS_PER_SAVE = 1;
const SECONDS_PER_RATE = 0.25;

/** The requests that run, of all conversations, and what the status line says of them. */
export class Runs {
  /** @param app shows and saves conversations; see App in main.js. */
  constructor(app) {
    this.app = app;
    this.all = new Map(); // id of an answer -> { stop, conversation, view }
    this.tellAgain = 0;
    this.latest = null;
  }

  /** What runs of a conversation. */
  of(id) {
    return [...this.all.values()].filter(({ conversation }) => conversation.id === id);
  }

  /** Let an answer come; whatever happens, it is kept and drawn. */
  async start(conversation, turnView, view, body) {
    const { app } = this;
    const { id } = view.answer;
    const stop = new AbortController();
    this.all.set(id, { stop, conversation, view });
    this.drawBusy();
    let saved = 0;
    const keep = () => {
      view.flush();
      const records = view.records.slice(saved);
      if (records.length) app.store.saveTokens(id, saved, records).catch(() => {});
      saved += records.length;
      return app.save(conversation);
    };
    // Hidden tabs have no frames, but what comes has to be kept all the same.
    const timer = setInterval(keep, 1000 * SECONDS_PER_SAVE);
    const frame = () => {
      if (!this.all.has(id)) return;
      app.atEnd(() => view.flush());
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    try {
      keep().then(() => app.list.draw());
      await app.server.answer(view, body, stop.signal);
    } finally {
      clearInterval(timer);
      this.all.delete(id);
      keep().then(() => app.list.draw());
      app.atEnd(() => turnView.draw());
      this.drawBusy();
      this.tellEnd(view);
    }
  }

  stop(id) {
    for (const { stop } of this.of(id)) stop.abort();
  }

  drawBusy() {
    find("stop").hidden = !this.of(this.app.conversation.id).length;
  }

  /** Say that a question has to wait. */
  refuse() {
    this.tellAgain = performance.now() + 3000;
    this.app.say("An answer still comes. Wait for it, or stop it.", "busy");
  }

  /** Say how the first answer of this conversation goes that has begun. */
  tellProgress() {
    const mine = this.of(this.app.conversation.id);
    const { view } = mine.find((run) => run.view.records.length) ?? {};
    if (!view || performance.now() < this.tellAgain) return;
    this.tellAgain = performance.now() + 1000 * SECONDS_PER_RATE;
    this.app.say(view.progress(), "busy", "off");
  }

  /** When nothing runs any more, say what the fused answer took, or how the server is. */
  tellEnd({ answer }) {
    if (answer.part === "fused" || !this.latest) this.latest = answer;
    if (this.all.size) return;
    const { model, facts, state } = this.latest;
    this.latest = null;
    if (state !== "done") this.app.server.watch(this.app.settings.model);
    else this.app.say(`Ready: ${model} · ${facts}`, "ready");
  }
}
