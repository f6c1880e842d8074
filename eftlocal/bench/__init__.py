"""Measures what a machine makes of a model trio: floors, fused rates, drafting, memory."""

SECTIONS: dict[str, str] = {
    "load": "load time, resident memory",
    "floors": "what llama.cpp takes by itself",
    "decoding": "plain fused decoding against the floor",
    "drafting": "every --draft, acceptance, what could be gained",
    "prefill": "reading a long prompt",
    "turns": "the second turn of a long chat",
    "fusion": "fusing and sampling one row, on rows of its own",
}
"""Section -> what it measures, in the order in which they run."""
