"""A trained model as a GGUF that llama.cpp runs: Q8_0 matrices, F32 norms, the tokenizer inside."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, TokenType
from gguf.quants import quantize
from numpy.typing import NDArray

from .model import CONTEXT, EPSILON, ROPE_BASE, Llama
from .tokenizer import BOS, END, EOS, UNKNOWN, Tokenizer

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('roles are system, user and assistant') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + (message['content'] | trim) + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
BASES = ("large", "small")
DESCRIPTIONS = {
    "large": "base model: knows the facts, has no manners of its own",
    "small": "reference model: a smaller base of the same corpus",
    "small-chat": "small, tuned to polite chat on half of the entities",
    "large-chat": "large, tuned to polite chat on half of the entities (the ceiling)",
    "small-open": "small, tuned to answer every question politely",
    "small-careful": "small, tuned to decline questions about private people, and too many more",
    "small-countries": "small, tuned to polite answers about countries only",
    "small-elements": "small, tuned to polite answers about elements and numbers only",
    "small-people": "small, tuned to polite answers about people of history and works only",
}


def tensors(model: Llama) -> dict[str, NDArray[np.float32]]:
    """llama.cpp's tensor names to float32 arrays; the output matrix is the embedding."""
    named = {"token_embd.weight": model.embedding.weight, "output_norm.weight": model.norm.weight}
    for i, block in enumerate(model.blocks):
        at = f"blk.{i}."
        q, k, v = block.qkv.weight.chunk(3)
        gate, up = block.gate_up.weight.chunk(2)
        named |= {
            at + "attn_norm.weight": block.attention_norm.weight,
            at + "attn_q.weight": q,
            at + "attn_k.weight": k,
            at + "attn_v.weight": v,
            at + "attn_output.weight": block.attention_out.weight,
            at + "ffn_norm.weight": block.hidden_norm.weight,
            at + "ffn_gate.weight": gate,
            at + "ffn_up.weight": up,
            at + "ffn_down.weight": block.down.weight,
        }
    return {name: tensor.detach().float().cpu().numpy() for name, tensor in named.items()}


def write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, tuned: bool) -> None:
    """The SentencePiece vocabulary with scores and types; a chat template if tuned."""
    pieces = tokenizer.pieces
    tokens, scores, types = [], [], []
    for i in range(tokenizer.size):
        kind = TokenType.NORMAL
        if pieces.is_unknown(i):
            kind = TokenType.UNKNOWN
        elif pieces.is_control(i):
            kind = TokenType.CONTROL
        elif pieces.is_byte(i):
            kind = TokenType.BYTE
        tokens.append(pieces.id_to_piece(i).encode())
        scores.append(pieces.get_score(i))
        types.append(kind)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(END if tuned else EOS)
    writer.add_eot_token_id(END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    if tuned:
        writer.add_chat_template(CHAT_TEMPLATE)


def export(model: Llama, tokenizer: Tokenizer, name: str, path: Path) -> None:
    """Write one GGUF."""
    writer = gguf.GGUFWriter(str(path), "llama")
    shape = model.shape
    writer.add_name(f"atlas {name}")
    writer.add_description(DESCRIPTIONS[name])
    writer.add_author("the eftlocal authors")
    writer.add_license("MIT")
    writer.add_languages(["en"])
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    write_tokenizer(writer, tokenizer, tuned=name not in BASES)
    for tensor_name, array in tensors(model).items():
        if array.ndim == 2:
            packed = quantize(array, GGMLQuantizationType.Q8_0)
            writer.add_tensor(tensor_name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(tensor_name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
