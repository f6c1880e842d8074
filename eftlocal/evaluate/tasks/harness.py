"""lm-evaluation-harness itself: whether it is there, its tasks, and how to keep it quiet."""

from __future__ import annotations

import difflib
import io
import logging
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EftlocalError, UsageError

Spec = str | dict[str, Any]
_LOCAL = ("atlas", "atlas-chat", "gsm8k=FILE", "truthfulqa=FILE")
_OFFLINE = "HF_DATASETS_OFFLINE"


def check_packages() -> None:
    """Find out whether the harness is installed.

    Raises:
        UsageError: saying how to install it.
    """
    if find_spec("lm_eval") is None or find_spec("datasets") is None:
        raise UsageError("eftlocal eval tasks needs more packages: pip install 'eftlocal[eval]'")


@dataclass(frozen=True)
class Manner:
    """How tasks are asked.

    Attributes:
        num_fewshot: examples before each question; None leaves what a task says.
        limit: documents per task; below 1 a share of them; None takes all.
        chat: apply the chat template.
        multiturn: examples are turns of the conversation; else all is one question.
        system_prompt: put before everything.
        gen_kwargs: changes to the tasks' generation settings.
        seed: of whatever is drawn; None draws what the harness itself draws without one.
    """

    num_fewshot: int | None = None
    limit: float | None = None
    chat: bool = False
    multiturn: bool = True
    system_prompt: str | None = None
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None

    @property
    def seeds(self) -> dict[str, int]:
        """The seeds by what is drawn: examples, whatever else tasks draw, and intervals."""
        if self.seed is not None:
            return dict.fromkeys(("fewshot", "numpy", "random", "bootstrap"), self.seed)
        # The defaults of lm_eval.simple_evaluate, so that it asks the same.
        return {"fewshot": 1234, "numpy": 1234, "random": 0, "bootstrap": 0}


class Tasks:
    """Tasks of the harness, loaded once and asked of any number of models.

    Args:
        names: names of the harness, YAML files, atlas, atlas-chat, gsm8k=FILE, truthfulqa=FILE.
        include: folders with more YAML files, whose tasks can be named.
        manner: how they are asked.

    Raises:
        UsageError: for an unknown task.
        EftlocalError: for one that cannot be loaded, as without the network.
    """

    def __init__(self, names: Sequence[str], include: Sequence[Path], manner: Manner) -> None:
        from lm_eval.tasks import TaskManager

        self._manner = manner
        known = [name for name in names if not _is_local(name)]
        indexed = [name for name in known if not _is_file(name)]
        manager = TaskManager(
            include_path=[str(folder) for folder in include] or None,
            include_defaults=bool(indexed),
        )
        for name in indexed:
            if name not in manager.task_index:
                raise UsageError(_unknown(name, manager.all_tasks))
        specs = [spec for name in names for spec in _specs(name)]
        # Some tasks shuffle answers, as they load and whenever they are asked.
        random.seed(manner.seeds["random"])
        np.random.seed(manner.seeds["numpy"])
        try:
            self._loaded = manager.load(specs)
        except EftlocalError:
            raise
        except Exception as error:
            raise EftlocalError(_why(error, known)) from None
        for task in self._loaded["tasks"].values():
            self._configure(task)
        self._drawn = random.getstate(), np.random.get_state()

    @property
    def tasks(self) -> Mapping[str, Any]:
        """Name -> task of the harness."""
        found: Mapping[str, Any] = self._loaded["tasks"]
        return found

    def _configure(self, task: Any) -> None:
        """What `lm_eval.simple_evaluate` does with the settings of its caller."""
        manner = self._manner
        if manner.gen_kwargs and task.get_config("output_type") == "generate_until":
            task.set_config("generation_kwargs", dict(manner.gen_kwargs), update=True)
        shots = task.get_config("num_fewshot")
        if manner.num_fewshot is None:
            task.set_config("num_fewshot", shots or 0)
        elif shots != 0:
            task.set_config("num_fewshot", manner.num_fewshot)

    def ask(self, model: Any) -> Mapping[str, Any]:
        """What the harness finds out about a model: the same documents and examples each time."""
        from lm_eval import evaluate

        manner = self._manner
        # As after loading: the harness goes on drawing from there.
        state, numpy_state = self._drawn
        random.setstate(state)
        np.random.set_state(numpy_state)
        for task in self.tasks.values():
            task.set_fewshot_seed(seed=manner.seeds["fewshot"])
        found: Mapping[str, Any] = evaluate(
            lm=model,
            task_dict=self._loaded,
            limit=manner.limit,
            bootstrap_iters=1000,
            log_samples=True,
            system_instruction=manner.system_prompt,
            apply_chat_template=manner.chat,
            fewshot_as_multiturn=manner.multiturn,
        )
        return found


def _is_local(name: str) -> bool:
    return "=" in name or name in _LOCAL


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _specs(name: str) -> list[Spec]:
    from .local import local_tasks

    if _is_local(name):
        name, _, path = name.partition("=")
        return list(local_tasks(name, Path(path) if path else None))
    if _is_file(name) and not Path(name).is_file():
        raise UsageError(f"there is no task file {name}")
    return [name]


def _unknown(name: str, known: Sequence[str]) -> str:
    alike = difflib.get_close_matches(name, [*known, *_LOCAL], n=3)
    hint = f"did you mean {' or '.join(alike)}? " if alike else ""
    return f"there is no task {name!r}; {hint}beside the harness's there are {', '.join(_LOCAL)}"


def _why(error: Exception, names: Sequence[str]) -> str:
    """One line about a task that could not be loaded."""
    reason = " ".join(str(error).split()) or type(error).__name__
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"ConnectionError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}:
        return f"the data of {', '.join(names)} has to be downloaded, and cannot be: {reason}"
    return f"cannot load {', '.join(names) or 'the tasks'}: {reason}"


@contextmanager
def quiet(names: Sequence[str], verbose: bool) -> Iterator[None]:
    """Keep the harness's own lines away, and it off the network where all data is here.

    Args:
        names: of the tasks.
        verbose: let it say what it wants, on standard error.
    """
    logger = logging.getLogger("lm_eval")
    level, before = logger.level, os.environ.get(_OFFLINE)
    with ExitStack() as stack:
        logger.setLevel(logging.INFO if verbose else logging.ERROR)
        stack.callback(logger.setLevel, level)
        if all(map(_is_local, names)):
            os.environ[_OFFLINE] = "1"
            stack.callback(_restore, before)
        if not verbose:
            # Its progress bars cannot be switched off one by one; ours was made before.
            nowhere = io.StringIO()
            stack.enter_context(redirect_stderr(nowhere))
            stack.enter_context(redirect_stdout(nowhere))
        yield


def _restore(value: str | None) -> None:
    if value is None:
        os.environ.pop(_OFFLINE, None)
    else:
        os.environ[_OFFLINE] = value
