import { factsOf } from "./answers.js";
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

  /** Look after an entry until it is loaded, or is not being loaded. */
  async watch(model) {
    while ((await this.props(model)).state === "loading") await pause(STEP);
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
      view.end("done");
      this.say(`Ready: ${body.model} · ${factsOf(answer)}`, "ready");
    } catch (error) {
      const isStopped = error.name === "AbortError";
      view.end(isStopped ? "stopped" : "cut", isStopped ? "" : sentence(error.message));
      this.watch(body.model);
    }
  }

  /** Do something again until it is not refused for a passing reason. */
  async patiently(action, model, signal) {
    for (;;) {
      try {
        return await action();
      } catch (error) {
        if (error.status === 401) await this.askKey(error.message, signal);
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
        if (reading) this.say(`Reading the prompt: ${done} of ${all} tokens`, "busy");
        else if (slots.length && slots.every((slot) => slot.is_processing)) {
          this.say("The server is busy. The question waits for its turn.", "busy");
        }
      }
    } catch {
      // The answer has begun, or its own request will tell what is wrong.
    }
  }

  /** Ask for the API key; a closed dialog asks again, as nothing works without one. */
  async askKey(message, signal) {
    const [form, note] = [this.keyDialog.querySelector("form"), this.keyDialog.querySelector("p")];
    note.textContent = sentence(message);
    form.reset();
    this.say("The server wants an API key.", "trouble");
    if (!this.keyDialog.open) this.keyDialog.showModal();
    await new Promise((resolve) => this.keyDialog.addEventListener("close", resolve, { once: true }));
    setKey(form.elements.key.value);
    signal?.throwIfAborted();
  }
}

const propsOf = (model) => get(model ? `props?model=${encodeURIComponent(model)}` : "props");

/** A message of the API as a sentence of the page. */
function sentence(message) {
  return `${message[0].toUpperCase()}${message.slice(1)}${/[.!?]$/.test(message) ? "" : "."}`;
}

function cutWords(error) {
  const reason = error.status ? error.message : "the connection was lost";
  return `${reason}; what had come by then is kept`;
}
