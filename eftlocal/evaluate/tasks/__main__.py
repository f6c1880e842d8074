"""lm-evaluation-harness's own command, with the model `eftlocal` among its models.

python -m eftlocal.evaluate.tasks run --model eftlocal --model_args entry=atlas --tasks ...
"""

from __future__ import annotations

from lm_eval.__main__ import cli_evaluate

from .model import EftlocalLM

if __name__ == "__main__":
    assert EftlocalLM is not None  # importing it has registered it
    cli_evaluate()
