"""Check the values that a user gives for an entry's options, and fill in the defaults."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bertopt_bench.catalogue.entry import HIDDEN, KINDS, Entry, Option, is_plain
from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Limits = Mapping[str, tuple[float, float]]

_EXPECTED = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "a text",
    "tuple": "a list of values",
}

_NOT_NEGATIVE = (0.0, math.inf)
_SHARE = (0.0, 1.0)
_ANY_LIMITS: Mapping[str, Limits] = {
    "optimizer": dict.fromkeys(("lr", "eps", "weight_decay", "l2", "momentum"), _NOT_NEGATIVE)
}
_OWN_LIMITS: Mapping[str, Limits] = {
    "optimizer": {
        **_ANY_LIMITS["optimizer"],
        **dict.fromkeys(("betas", "momentum", "alpha"), _SHARE),
        **dict.fromkeys(
            ("adamw_lr", "initial_accumulator_value", "momentum_decay", "smallest_scale"),
            _NOT_NEGATIVE,
        ),
        "clip": (1.0, math.inf),
    },
    "device": dict.fromkeys(("threads", "index"), _NOT_NEGATIVE),
}
"""Least value, and what it must stay below: most others torch refuses, but only in the trial."""


LATER = {("optimizer", "muon"): ("ns_precision",)}
"""Options that came after results were published: said only where chosen, so that ids stay."""


def canonical(entry: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the entry's full choice: its name and every option, defaults filled in, as plain JSON.

    Options of ``LATER`` are left out at their defaults.

    Raises:
        UserError: an unknown option, a wrong type, a value that is no choice or outside its
            limits, or one missing.
    """
    known = {option.name: option for option in entry.options}
    later = LATER.get((entry.axis, entry.name), ())
    who = f"{entry.axis} '{entry.name}'"
    others = {key: value for key, value in options.items() if key not in known}
    for key, value in others.items():
        if key in HIDDEN.get(entry.axis, ()):
            raise UserError(
                f"{who} is not told '{key}' here: set kernel.optimizer_step to "
                "'loop', 'foreach', 'fused' or 'capturable'."
            )
        if not entry.open:
            takes = f"It takes: {', '.join(known)}." if known else "It takes no options."
            raise UserError(f"{who} takes no option '{key}'. {takes}{_nearest_option(key, known)}")
        _as_kind(f"{who}: option '{key}'", "any", value)
    choice: dict[str, Any] = {"name": entry.name}
    for option in known.values():
        if option.name in options:
            choice[option.name] = _checked(who, option, options[option.name])
            _refuse_outside_limits(entry, option.name, choice[option.name])
        elif option.required:
            raise UserError(f"{who} needs the option '{option.name}' ({option.kind}).")
        else:
            choice[option.name] = _default(option)
        if option.name in later and choice[option.name] == _default(option):
            del choice[option.name]
    return choice | {key: _plain(value) for key, value in others.items()}


def _default(option: Option) -> Any:
    """Give an option's default as the value that a user would have written (1 as 1.0)."""
    default = _plain(option.default)
    return float(default) if option.kind == "float" and type(default) is int else default


def _checked(who: str, option: Option, value: Any) -> Any:
    what = f"{who}: option '{option.name}'"
    if option.choices is not None:
        if value in option.choices and isinstance(value, bool) == (option.kind == "bool"):
            return value
        allowed = ", ".join(map(repr, option.choices))
        close = nearest(str(value), map(str, option.choices))
        raise UserError(f"{what} is {value!r}; it must be one of {allowed}.{close}")
    if option.kind != "tuple" or not isinstance(value, list | tuple):
        return _as_kind(what, option.kind, value)
    kinds = option.items or ("any",) * len(value)
    if len(value) != len(kinds):
        raise UserError(f"{what} has {len(value)} values; it must have {len(kinds)}.")
    return [_as_kind(what, kind, part) for kind, part in zip(kinds, value, strict=True)]


def _refuse_outside_limits(entry: Entry, option: str, value: Any) -> None:
    """Refuse a number, or one of a list, that no trial could train with."""
    limits = _OWN_LIMITS if entry.target.startswith("bertopt_bench.") else _ANY_LIMITS
    least, below = limits.get(entry.axis, {}).get(option, (-math.inf, math.inf))
    for part in value if isinstance(value, list) else [value]:
        if type(part) in {int, float} and not least <= part < below:
            words = f"be at least {least:g}" if least else "not be negative"
            if below < math.inf:
                words = f"lie from {least:g} to below {below:g}"
            raise UserError(
                f"{entry.axis} '{entry.name}': option '{option}' is {value!r}; it must {words}."
            )


def _as_kind(what: str, kind: str, value: Any) -> Any:
    """Give a value as the kind says: whole numbers are floats too, nothing else is converted."""
    if kind == "float" and type(value) is int:
        return float(value)
    if kind == type(value).__name__ or (kind not in KINDS and is_plain(value)):
        return _plain(value)
    expected = _EXPECTED.get(kind, "a number, a text, true or false, or a list of these")
    raise UserError(f"{what} is {value!r} ({type(value).__name__}); it must be {expected}.")


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _nearest_option(key: str, known: Iterable[str]) -> str:
    """Name the nearest option, also where the user wrote an abbreviation out (learning_rate)."""
    initials = "".join(part[:1] for part in key.split("_"))
    if initials in known:
        return f" Did you mean '{initials}'?"
    return nearest(key, known)
