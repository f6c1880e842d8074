"""Tasks of lm-evaluation-harness on a fused model and on each of its parts (extra `eval`)."""
