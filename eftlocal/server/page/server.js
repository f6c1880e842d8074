import { Failure, get, pause, setKey, streamChat } from "./api.js";

const STEP = 0.5;

/** What is known of the server, told in the status line; and requests that outlast its troubles. */
export class Server {
  /** @param say called with a sentence, and "ready", "busy" or "trouble". */
  constructor(say, keyDialog) {
    this.say = say;
    this.keyDialog = keyDialog;
  }

  /** What /props says of an entry; waits for a server that does not answer, and for a key. */
  async props(model) {
    const props = await this.patiently(() => propsOf(model), model);
    this.tell(props);
    return props;
  }

  /**
   * Look after an entry, the last one that this is called for, as long as it is being loaded.
   * @param known what /props has just said of it; asked for where it is left out
   */
  async watch(model, known) {
    this.watched = model;
    try {
      let { state } = known ?? (await this.props(model));
      while (state === "loading") {
        await pause(STEP);
        if (this.watched !== model) return;
        ({ state } = await this.props(model));
      }
    } catch (error) {
      this.say(sentence(error.message), "trouble");
    }
  }

  tell({ model, state, progress, failure }) {
    const words = {
      loading: `Loading ${model}: ${Math.round(100 * (progress ?? 0))} %`,
      failed: sentence(failure || `the model ${model} cannot be loaded`),
      unloaded: `Ready. ${model} will be loaded for the next question.`,
      loaded: `Ready: ${model}`,
    };
    this.say(words[state], { loading: "busy", failed: "trouble" }[state] ?? "ready");
  }

  /** Stream an answer into its view; only aborting the signal, or a failure that stays, ends it. */
  async answer(view, body, signal) {
    const { answer } = view;
    try {
      await this.patiently(async () => {
        view.clear();
        const stop = new AbortController();
        this.tellWait(answer, body.model, stop.signal);
        try {
          for await (const chunk of streamChat(body, signal)) view.take(chunk);
        } catch (error) {
          // Half an answer is worth keeping; the same words might not come again.
          const isCut = answer.state === "streaming" && error.isPassing;
          throw isCut ? new Failure(cutWords(error), -1) : error;
        } finally {
          stop.abort();
        }
      }, body.model, signal);
      // An entry that was not loaded when it was asked does not know its context before.
      answer.fusion.nCtx ??= (await propsOf(body.model).catch(() => ({}))).n_ctx;
      view.end("done");
    } catch (error) {
      const isStopped = error.name === "AbortError";
      view.end(isStopped ? "stopped" : "cut", isStopped ? "" : sentence(error.message));
    }
  }

  /** Do something again until it is not refused for a passing reason. */
  async patiently(action, model, signal) {
    for (;;) {
      try {
        return await action();
      } catch (error) {
        if (error.status === 401) await this.askKey(error, signal);
        else if (!error.isPassing) throw error;
        else await this.outwait(error, model, signal);
      }
    }
  }

  /** Wait as long as a refusal says; while the entry is loaded, say how far that is. */
  async outwait(error, model, signal) {
    const again = error.status ? "Trying again." : "It may be restarting. Trying again.";
    this.say(`${sentence(error.message)} ${again}`, error.status ? "busy" : "trouble");
    const until = Date.now() + 1000 * Math.min(Math.max(1, error.retryAfter), 5);
    while (Date.now() < until) {
      await pause(STEP, signal);
      if (error.status === 503 && model) {
        const props = await propsOf(model).catch(() => ({}));
        if (props.state === "loading") this.tell(props);
      }
    }
  }

  /** Until the first token comes, say what the server does meanwhile. */
  async tellWait(answer, model, signal) {
    try {
      for (;;) {
        await pause(STEP, signal);
        if (answer.state !== "waiting") return;
        const slots = await get(`slots?model=${encodeURIComponent(model)}`);
        const reading = slots.find((slot) => slot.prefilled_tokens < slot.prompt_tokens);
        const { prefilled_tokens: done, prompt_tokens: all } = reading ?? {};
        if (reading) this.say(`Reading a prompt: ${done} of ${all} tokens`, "busy");
        else if (slots.length && slots.every((slot) => slot.is_processing)) {
          this.say("The server is busy. The question waits for its turn.", "busy");
        }
      }
    } catch {
      // The answer has begun, or its own request will tell what is wrong.
    }
  }

  /** Ask for the API key; who closes the dialog without one is not asked again before they act. */
  async askKey(error, signal) {
    const [form, note] = [this.keyDialog.querySelector("form"), this.keyDialog.querySelector("p")];
    note.textContent = sentence(error.message);
    this.say("The server wants an API key.", "trouble");
    if (!this.keyDialog.open) {
      form.reset();
      this.keyDialog.returnValue = "";
      this.keyDialog.showModal();
    }
    const once = { once: true };
    await new Promise((resolve) => this.keyDialog.addEventListener("close", resolve, once));
    signal?.throwIfAborted();
    if (this.keyDialog.returnValue !== "use") throw new Failure("the server wants an API key", 403);
    setKey(form.elements.key.value.trim());
  }
}

const propsOf = (model) => get(model ? `props?model=${encodeURIComponent(model)}` : "props");

/** A message of the API as a sentence of the page. */
function sentence(message) {
  const words = message || "the server does not say what is wrong";
  return `${words[0].toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;
}

function cutWords(error) {
  const reason = error.status ? error.message : "the connection was lost";
  return `${reason}; what had come by then is kept`;
}
