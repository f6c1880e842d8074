"""/tokenize, /detokenize, /tokenizer_info and /apply-template."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

import eftlocal

from .full_server import COMPLETIONS, FRANCE, Running


def test_two_dialects(server: Running, atlas: eftlocal.FusedModel) -> None:
    """llama.cpp's content has no BOS, vLLM's prompt has, unless they say otherwise."""
    text = "What is <|end|> this?"
    with_bos = atlas.vocabulary.tokenize(text, add_special=True, parse_special=True)
    assert with_bos[0] == atlas.vocabulary.bos
    for fields, expected in (
        ({"content": text}, with_bos[1:]),
        ({"content": text, "add_special": True}, with_bos),
        ({"prompt": text}, with_bos),
        ({"prompt": text, "add_special_tokens": False}, with_bos[1:]),
    ):
        answer = server.post("/tokenize", **fields)
        assert answer["tokens"] == expected and answer["count"] == len(expected)
    letters = server.post("/tokenize", content="<|end|>", parse_special=False)["tokens"]
    assert len(letters) > 1
    assert server.refused("/tokenize")["message"].startswith("give a text")
    assert server.refused("/tokenize", content="a", prompt="b")["param"] == "content"


def test_pieces(server: Running) -> None:
    """Texts of tokens; bytes where a token is a part of a character."""
    tokens = server.post("/tokenize", content="The \u2603<|end|>", with_pieces=True)["tokens"]
    pieces = [token["piece"] for token in tokens]
    assert pieces[0] == "The" and pieces[-1] == "<|end|>"
    parts = [piece for piece in pieces if isinstance(piece, list)]
    assert bytes(byte for part in parts for byte in part).decode() == "\u2603"


@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
@example(" two  spaces ")
@example("test")
@settings(max_examples=60)
def test_a_text_comes_back(server: Running, exact_server: Running, text: str) -> None:
    """Detokenizing gives what was tokenized, also where a tokenizer puts a space first."""
    for running in (server, exact_server):
        tokens = running.post("/tokenize", content=text, parse_special=False)["tokens"]
        answer = running.post("/detokenize", tokens=tokens)
        assert answer["content"] == answer["prompt"] == text


def test_a_space_behind_bos(exact_server: Running) -> None:
    """It is no part of the text there either."""
    tokens = exact_server.post("/tokenize", prompt="test")["tokens"]
    text = exact_server.post("/detokenize", tokens=tokens)["content"]
    assert text.endswith("test") and " " not in text


def test_detokenizing_keeps_markers(server: Running) -> None:
    """As lm-eval and llama.cpp expect."""
    text = "<s>What is <|end|>"
    tokens = server.post("/tokenize", content=text)["tokens"]
    assert server.post("/detokenize", tokens=tokens)["content"] == text
    assert server.post("/detokenize", tokens=[])["content"] == ""
    assert "2048" in server.refused("/detokenize", tokens=[2048])["message"]


def test_tokenizer_info(server: Running, atlas: eftlocal.FusedModel) -> None:
    """The names that lm-eval reads, and the template as it stands in the file."""
    info = server.client.get("/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"]) == ("<s>", "<|end|>")
    assert (info["bos_token_id"], info["eos_token_id"]) == (1, atlas.vocabulary.eos)
    assert "<|assistant|>" in info["chat_template"]
    assert server.client.get("/tokenizer_info", params={"model": "x"}).status_code == 404


def test_a_template_can_be_applied(server: Running) -> None:
    """What it gives, sent as a completion, is the chat completion."""
    prompt = server.post("/apply-template", messages=FRANCE)["prompt"]
    assert prompt == "<|user|>What is the capital of France?<|end|><|assistant|>"
    answer = server.post(COMPLETIONS, prompt=prompt)
    assert answer["choices"][0]["text"] == server.chat()["choices"][0]["message"]["content"]
    assert answer["usage"]["prompt_tokens"] == server.chat()["usage"]["prompt_tokens"]
