"""Parts: tricks, optimizers, losses, models, data sources, metrics and callbacks, one row each.

part        the row
hooks       the places where a part's code is called
tricks, optimizers, losses, metrics   the rows that come with raytricks, with their settings
registry    all of them

Nothing here imports torch, ray, or the code of a part before it is used.
"""

from raytricks.parts.hooks import Hooks
from raytricks.parts.part import Part, Setting
from raytricks.parts.section import Section

__all__ = ["Hooks", "Part", "Section", "Setting"]
