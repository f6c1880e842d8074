"""The options of `eftlocal eval judge`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .eval_options import CACHE, PARALLEL
from .options import Decorator, option, with_options

if TYPE_CHECKING:
    from ..evaluate.judge.endpoint import Server
    from ..evaluate.judge.roles import Role

_ROLES = "helpfulness,factuality,harmlessness"
_AT_LEAST_ONE = click.IntRange(min=1)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options of `judge` alone say."""

    prompts: str
    every: int
    parts: bool
    ceiling: str | None
    roles: str
    pairs: bool
    parallel: int
    judge: str | None
    judge_model: str | None
    judge_key_env: str | None
    second_judge: str | None
    second_judge_model: str | None
    second_judge_key_env: str | None
    concurrency: int
    judge_timeout: float
    judge_retries: int
    judge_max_tokens: int
    verdicts: tuple[str, ...]
    out: str | None
    cache: str | None
    fresh: bool
    as_json: bool
    html: str | None

    def check(self) -> None:
        """Check that the judges make sense together.

        Raises:
            UsageError: saying what is missing or too much.
        """
        for url, model, name in (
            (self.judge, self.judge_model, "judge"),
            (self.second_judge, self.second_judge_model, "second-judge"),
        ):
            if (url is None) != (model is None):
                raise UsageError(f"--{name} and --{name}-model go together")
        if self.second_judge is not None and self.judge is None:
            raise UsageError("--second-judge needs --judge")
        if len(self.verdicts) + (self.judge is not None) + (self.second_judge is not None) > 2:
            raise UsageError("there are more than two judges: two can be compared")
        if self.pairs and not self.parts and self.ceiling is None:
            raise UsageError("--pairs compares with other systems: add --parts or --ceiling")
        if self.out is not None and not Path(self.out).absolute().parent.is_dir():
            raise UsageError(f"--out {self.out}: there is no folder {Path(self.out).parent}")
        if not self.has_judge and (self.as_json or self.html is not None):
            raise UsageError("--json and --html show what judges found: add --judge or --verdicts")

    @property
    def has_judge(self) -> bool:
        """Whether anyone judges."""
        return self.judge is not None or bool(self.verdicts)

    @property
    def chosen_roles(self) -> tuple[Role, ...]:
        """The roles, in the order of the table.

        Raises:
            UsageError: for one that does not exist.
        """
        from ..evaluate.judge.roles import ROLES

        names = [name.strip() for name in self.roles.split(",")]
        for name in names:
            if name not in ROLES:
                raise UsageError(f"there is no role {name!r}; use {', '.join(ROLES)}")
        return tuple(role for name, role in ROLES.items() if name in names)

    def servers(self) -> Iterator[Server]:
        """The endpoints.

        Raises:
            UsageError: for a URL that is none, or where the extra is not installed.
        """
        if self.judge is None or self.judge_model is None:
            return
        try:
            from ..evaluate.judge.endpoint import (
                DEFAULT_KEY,
                Server,
                may_have_default_key,
                same_place,
            )
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "openai":
                raise
            raise UsageError(
                "eftlocal eval judge needs more packages: pip install 'eftlocal[eval]'"
            ) from None
        limits: dict[str, Any] = {
            "timeout": self.judge_timeout,
            "retries": self.judge_retries,
            "concurrency": self.concurrency,
            "max_tokens": self.judge_max_tokens,
        }
        first = Server(
            self.judge,
            self.judge_model,
            self.judge_key_env or DEFAULT_KEY,
            # OpenAI's key is not for everyone.
            self.judge_key_env is not None or may_have_default_key(self.judge),
            **limits,
        )
        yield first
        if self.second_judge is not None and self.second_judge_model is not None:
            # Nor is the first one's.
            own = self.second_judge_key_env
            shares = first.sends_key and same_place(self.second_judge, self.judge)
            second = Server(
                self.second_judge,
                self.second_judge_model,
                own or first.key_variable,
                own is not None or shares,
                "--second-judge-key-env",
                **limits,
            )
            if second.content == first.content:
                raise UsageError("the second judge is the first one: name another model or URL")
            yield second


_OWN: tuple[Decorator, ...] = (
    option("--prompts", metavar="FILE", envvar=None, default="atlas",
           help="Prompts as JSON lines; atlas: the embedded family's questions.  [default: atlas]"),
    option("--every", type=_AT_LEAST_ONE, envvar=None, default=1, metavar="N",
           help="Take every N-th prompt only."),
    option("--parts", is_flag=True, envvar=None,
           help="Let the base and the tuned models answer alone, too."),
    option("--ceiling", metavar="FILE", envvar=None,
           help="A tuned model of the base's size, which answers alone, too."),
    option("--roles", metavar="ROLE,...", envvar=None, default=_ROLES,
           help=f"What is judged.  [default: {_ROLES}]"),
    option("--pairs", is_flag=True, envvar=None,
           help="Compare the fused model with every other one, in both orders."),
    PARALLEL,
    option("--out", metavar="FILE", envvar=None,
           help="Write replies and what to tell a judge here.  [default without a judge: stdout]"),
    option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object instead."),
    option("--html", metavar="FILE", envvar=None, help="Write a page with the tables, too."),
)  # fmt: skip
_JUDGES: tuple[Decorator, ...] = (
    option("--judge", metavar="URL", envvar=None, section="Judges",
           help="An OpenAI-compatible API, such as http://127.0.0.1:8080/v1; the prompts and the "
           "replies are sent there."),
    option("--judge-model", metavar="NAME", envvar=None, section="Judges", help="Its model."),
    option("--judge-key-env", metavar="VAR", envvar=None, section="Judges",
           help="Environment variable that holds its key.  [default: OPENAI_API_KEY for "
           "https://api.openai.com and servers on this machine, else no key]"),
    option("--second-judge", metavar="URL", envvar=None, section="Judges",
           help="Another one, to see how far they agree; the same URL with another model will do."),
    option("--second-judge-model", metavar="NAME", envvar=None, section="Judges",
           help="Its model."),
    option("--second-judge-key-env", metavar="VAR", envvar=None, section="Judges",
           help="Variable with its key.  [default: the first judge's on the same server, else "
           "no key]"),
    option("--concurrency", type=_AT_LEAST_ONE, envvar=None, default=4, metavar="N",
           section="Judges", help="Requests at once.  [default: 4]"),
    option("--judge-timeout", type=click.FloatRange(min=0, min_open=True), envvar=None,
           default=120.0, metavar="SECONDS", section="Judges",
           help="Time for one answer.  [default: 120]"),
    option("--judge-retries", type=click.IntRange(min=0), envvar=None, default=4, metavar="N",
           section="Judges", help="Tries after a lost connection, 429 or 5xx.  [default: 4]"),
    option("--judge-max-tokens", type=_AT_LEAST_ONE, envvar=None, default=1024, metavar="N",
           section="Judges", help="Tokens of one answer.  [default: 1024]"),
    option("--verdicts", metavar="FILE", envvar=None, multiple=True, section="Judges",
           help="Verdicts made elsewhere on what --out wrote; counts as a judge; repeatable."),
)  # fmt: skip


judge_options = with_options(*_OWN, *_JUDGES, *CACHE)
"""The options that `Wishes` holds."""
