"""What is checked of regexes and grammars before llguidance sees them: size and nesting.

Both are looked at as characters only; what they mean, llguidance checks.
"""

from __future__ import annotations

import re

from ..errors import UsageError

MAX_REGEX = 4096
"""Most characters of a regex."""
MAX_NESTING = 50
"""Most brackets in each other."""
_MAX_NESTED_REPEATS = 2000
_MAX_REPEAT = 1_000_000
# An escaped character, a class, a bracket, or how often what stands before is repeated.
_PARTS = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|[()]|\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}", re.DOTALL)


def check_regex(text: str, what: str) -> None:
    """Check a regex.

    Args:
        text: the regex.
        what: begins the message, such as "the regex".

    Raises:
        UsageError: where it is too long, or nested too deep.
    """
    if len(text) > MAX_REGEX:
        raise UsageError(f"{what} has more than {MAX_REGEX} characters")
    check_nesting(text, what)


def check_nesting(text: str, what: str) -> None:
    """Check how deep brackets are nested, and how often repeats repeat repeats.

    A repeat costs what is in it times its bound where it stands in another one: the states of
    (a{1,1000}){1,1000} are a million.

    Raises:
        UsageError: where it is too much.
    """
    # Per open bracket the largest product of repeats in it, and that of what ended last.
    within, last = [1], 1
    for part in _PARTS.finditer(text):
        if part[0] == "(":
            within.append(1)
            last = 1
        elif part[0] == ")" and len(within) > 1:
            last = within.pop()
            within[-1] = max(within[-1], last)
        elif part[0][0] == "{":
            times = _bound(part, what)
            if last > 1 and last * times > _MAX_NESTED_REPEATS:
                raise UsageError(f"{what} repeats a repeat more than {_MAX_NESTED_REPEATS} times")
            last *= times
            within[-1] = max(within[-1], last)
            last = 1
        else:
            last = 1
        if len(within) > MAX_NESTING:
            raise UsageError(f"{what} has more than {MAX_NESTING} brackets in each other")


def _bound(part: re.Match[str], what: str) -> int:
    """How often a repeat repeats at most, or at least where there is no most."""
    numbers = [number for number in part.groups() if number]
    if any(len(number) > 7 or int(number) > _MAX_REPEAT for number in numbers):
        raise UsageError(f"{what} repeats something more than {_MAX_REPEAT} times")
    return max([1, *map(int, numbers)])
