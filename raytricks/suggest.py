"""Guess which known name a mistyped one stands for.

Names are compared by their parts: `mixup_alpha` and `tricks.mixup_alfa` both lead to
`tricks.mixup.alpha`, and `lr` to `recipe.base_lr`. Works for any names, not only for keys.
"""

from collections.abc import Iterable
from difflib import SequenceMatcher

CUTOFF = 0.6
"""Names less alike than this are not suggested."""
BEHIND_BEST = 0.12
"""Names this much less alike than the best one are not suggested either."""
WORD_LEFT_OUT = 0.1
NAME_LEFT_OUT = 0.02
"""Cost of ignoring one leading part of the typed word or of the known name. The user wrote the
former on purpose; leaving out a section of the latter is the usual slip."""
IS_ENDING = 0.85
IS_BEGINNING = 0.8
"""Likeness of whole words that end (`lr` in `base_lr`) or begin (`lr` in `lr_scaling`) a name."""


def closest(word: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return at most `limit` of the known names that look like `word`, the likeliest first."""
    scores = {name: _likeness(word, name) for name in known}
    best = max(scores.values(), default=0.0)
    threshold = max(CUTOFF, best - BEHIND_BEST)
    likely = [name for name, score in scores.items() if score >= threshold]
    return sorted(likely, key=lambda name: -scores[name])[:limit]


def did_you_mean(word: str, known: Iterable[str], limit: int = 3) -> str:
    """Return `; did you mean X?` to append to an error about `word`, or "" if nothing is alike."""
    return as_question(closest(word, known, limit))


def as_question(names: list[str]) -> str:
    """Return `; did you mean X, Y or Z?`, or "" without names."""
    if not names:
        return ""
    *others, last = names
    return f"; did you mean {', '.join(others)} or {last}?" if others else f"; did you mean {last}?"


def _likeness(word: str, name: str) -> float:
    """Return how alike two dotted names are, 0 to 1, over all ways to leave out leading parts."""
    word_parts, name_parts = _parts(word), _parts(name)
    # a section that is right says nothing about which of its keys was meant
    while len(word_parts) > 1 and len(name_parts) > 1 and word_parts[0] == name_parts[0]:
        word_parts, name_parts = word_parts[1:], name_parts[1:]
    return max(
        _tail_likeness("_".join(word_parts[word_cut:]), "_".join(name_parts[name_cut:]))
        - WORD_LEFT_OUT * word_cut
        - NAME_LEFT_OUT * name_cut
        for word_cut in range(len(word_parts))
        for name_cut in range(len(name_parts))
    )


def _parts(name: str) -> list[str]:
    return name.lower().replace("-", "_").split(".")


def _tail_likeness(word: str, name: str) -> float:
    if not word:
        return 0.0
    if name.endswith("_" + word):
        return IS_ENDING
    if name.startswith(word + "_"):
        return IS_BEGINNING
    return SequenceMatcher(None, word, name).ratio()
