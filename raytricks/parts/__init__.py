"""Parts: tricks, optimizers, losses, models, data sources, metrics, callbacks, trackers: one row each.

part        the row, and the section of its settings
hooks       the places where a part's code is called, and what they hand over
tricks, optimizers, losses, models, metrics, sources, trackers   the rows that come with raytricks
registry    all of them
bring       parts of the user's own: by file, package, entry point; signatures: of a callable
trust       whose code may run

Nothing here imports torch, ray, or the code of a part before it is used.
"""

from raytricks.parts.hooks import Hooks
from raytricks.parts.part import Part, Section, Setting

__all__ = ["Hooks", "Part", "Section", "Setting"]
