/** What a conversation is: turns of a question with one or several answers. */

/** A new id; crypto.randomUUID is missing where a page comes over plain http. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint32Array(3)), (n) => n.toString(36)).join("");
}

/** A conversation in which nothing was asked yet. */
export function fresh() {
  return { id: newId(), title: "", system: "", created: Date.now(), turns: [] };
}

/** What the models have read before a turn's question, and the question. */
export function messagesOf({ system, turns }, turn) {
  const before = turns.slice(0, turns.indexOf(turn)).flatMap(({ question, answers, chosen }) => {
    const content = answers[chosen]?.text;
    // Templates want questions and answers in turns: a question without an answer is left out.
    const pair = [{ role: "user", content: question }, { role: "assistant", content }];
    return content ? pair : [];
  });
  const opening = system.trim() ? [{ role: "system", content: system.trim() }] : [];
  return [...opening, ...before, { role: "user", content: turn.question }];
}

/** All answers of turns, also those of other versions of a question. */
export function answersOf(turns) {
  return turns.flatMap((turn) => [...turn.answers, ...turn.others.flatMap(answersOf)]);
}
