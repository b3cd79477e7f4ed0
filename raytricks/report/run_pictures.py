"""The pictures of a run's page: mistakes, unsure answers, and what lies behind a cell of the confusion matrix.

Each picture is in the page's data once; the script puts it wherever it is shown.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

from raytricks.inference.evaluation import Evaluation
from raytricks.report.confusion import confusion_data, images_of_cells
from raytricks.report.evaluation_lines import most_confused
from raytricks.report.noteworthy import Noteworthy
from raytricks.report.run_of_page import RunOfPage
from raytricks.report.tables import section

_WORST_PAIRS = 12


def pictures_data(run: RunOfPage, seen: Noteworthy) -> dict[str, Any]:
    """Return what the page's script shows of a run: the matrix, images by cell, texts and pictures by image."""
    found = run.evaluation
    assert found is not None
    cells = images_of_cells(found, seen)
    shown = dict.fromkeys([*seen.images, *(index for images in cells.values() for index in images)])
    return {
        "confusion": confusion_data(found),
        "cells": cells,
        "told": {index: _told(index, found, seen) for index in shown},
        "pictures": {index: run.thumbnails[index] for index in seen.images if index in run.thumbnails},
    }


def picture_section(title: str, chosen: Sequence[int], place: int) -> str:
    """Return a section of pictures that the script fills."""
    if not chosen:
        return section(title, '<p class="muted">None.</p>')
    images = escape(",".join(map(str, chosen)))
    return section(title, f'<div class="thumbnails" data-run="{place}" data-images="{images}"></div>')


def confusion_section(found: Evaluation, place: int, prefix: str) -> str:
    """Return the section of the confusion matrix, its switches and its worst pairs."""
    names, shown = found.figures.class_names, len(confusion_data(found)["classes"])
    which = "" if shown == len(names) else f" The {shown} most confused of {len(names):,} classes."
    pairs = most_confused(found.figures.confusion, _WORST_PAIRS)
    buttons = "".join(
        f'<button type="button" class="pair" data-run="{place}" data-cell="{true},{taken}" data-count="{count}">'
        f"{count:,} × {escape(names[true])} taken for {escape(names[taken])}</button>"
        for true, taken, count in pairs
    )
    worst = f'<p class="pairs">{buttons}</p>' if pairs else '<p class="muted">No image was taken for another class.</p>'
    switches = "".join(
        f'<label><input type="checkbox" data-confusion="{place}" name="{name}"{checked}> {text}</label>'
        for name, text, checked in (
            ("share", "parts of each true class", " checked"),
            ("worst", "most confused classes first", ""),
        )
    )
    return section(
        f"{prefix}Confusion",
        f'<p class="muted">Click on a cell, or on a pair below, to see its images.{which}</p>'
        f'<p class="switches">{switches}</p><div class="wide"><div class="figure" id="confusion-{place}"></div></div>'
        f'{worst}<div class="thumbnails" id="cell-{place}" aria-live="polite"></div>',
    )


def _told(index: int, found: Evaluation, seen: Noteworthy) -> list[str]:
    """Return an image's name and what it was taken for."""
    names = found.figures.class_names
    true, taken = names[int(found.labels[index])], names[int(found.logits[index].argmax())]
    answer = f"{taken} {seen.confidence[index]:.0%}"
    name = found.image_names[index] if index < len(found.image_names) else f"image {index}"
    return [name, answer if true == taken else f"{true}, taken for {answer}"]
