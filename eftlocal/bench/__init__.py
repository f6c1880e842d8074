"""Measures what a machine makes of a model trio: floors, fused rates, drafting, memory."""

SECTIONS: dict[str, str] = {
    "load": "load time, resident memory",
    "floors": "what llama.cpp takes by itself",
    "decoding": "plain fused decoding against the floor",
    "drafting": "every --draft, acceptance, what could be gained",
    "acceptance": "drafting where drafts are right with a chosen probability",
    "gap": "how much of the gap between small and large model is recovered",
    "prefill": "reading a long prompt",
    "turns": "the second turn of a long chat",
    "batching": "1 to 8 generations at once, separate and unified caches",
    "serving": "eftlocal serve with eight clients, and beside a long prompt",
    "caches": "types of KV caches, flash attention, GPU layers",
    "fusion": "fusing and sampling one row, on rows of its own",
}
"""Section -> what it measures, in the order in which they run."""
