"""Patterns, pointers and names of scenarios; the README above tells what they mean."""

from typing import Any, Dict


class Wrong(Exception):
    """A value does not fit, or a scenario is wrong."""


def matches(pattern: Any, value: Any, at: str) -> None:
    """Raises Wrong where the value does not fit."""
    fits = True
    if isinstance(pattern, dict):
        name = next(iter(pattern), "")
        if len(pattern) == 1 and name.startswith("$"):
            fits = passes(name, pattern[name], value)
        elif isinstance(value, dict):
            for key, one in pattern.items():
                matches(one, value.get(key), f"{at}/{key}")
            return
        else:
            fits = False
    elif isinstance(pattern, list):
        fits = isinstance(value, list) and len(pattern) == len(value)
        for n, one in enumerate(pattern if fits else []):
            matches(one, value[n], f"{at}/{n}")
    else:
        fits = pattern == value and isinstance(pattern, bool) == isinstance(value, bool)
    if not fits:
        raise Wrong(f"{at} is {str(value)[:600]} and not {pattern}")


def fit(pattern: Any, value: Any) -> bool:
    try:
        matches(pattern, value, "")
    except Wrong as wrong:
        if str(wrong).startswith("no pattern"):
            raise
        return False
    return True


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def passes(name: str, argument: Any, value: Any) -> bool:
    many = value if isinstance(value, list) else []
    if name == "$length":
        return isinstance(value, (list, str)) and len(value) == argument
    if name == "$contains":
        return argument in value if isinstance(value, str) else any(fit(argument, one) for one in many)
    if name == "$min":
        return number(value) and value >= argument
    if name == "$max":
        return number(value) and value <= argument
    if name == "$is":
        return argument == kind(value)
    if name == "$any":
        return any(fit(one, value) for one in argument)
    if name == "$set":
        left = list(many)
        for one in argument:
            found = next((n for n, candidate in enumerate(left) if fit(one, candidate)), None)
            if found is None:
                return False
            left.pop(found)
        return isinstance(value, list) and not left
    if name == "$absent":
        return value is None
    if name == "$not":
        return not fit(argument, value)
    raise Wrong(f"no pattern: {name}")


def kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "list"}
    return names.get(type(value), "object")


def pointer(value: Any, path: str) -> Any:
    """What a JSON pointer leads to."""
    for step in path.split("/")[1:]:
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (LookupError, TypeError, ValueError):
            raise Wrong(f"nothing to save at {path}") from None
    return value


def fill(value: Any, saved: Dict[str, Any]) -> Any:
    """Puts names in: `$queue`, and `${saved}`."""
    if isinstance(value, str):
        if value.startswith("${") and value.endswith("}") and value[2:-1] in saved:
            return saved[value[2:-1]]
        for name, one in saved.items():
            if isinstance(one, str):
                value = value.replace("${" + name + "}", one)
        return value.replace("$queue", saved["queue"])
    if isinstance(value, list):
        return [fill(one, saved) for one in value]
    if isinstance(value, dict):
        return {key: fill(one, saved) for key, one in value.items()}
    return value
