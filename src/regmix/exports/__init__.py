"""Models taken out of run directories: files for other programs, each checked against the model, with a model card.

A folder of its own because only the command line needs it, while all that train, evaluate and report import `runs`.
"""

from regmix.exports.check import TOLERANCE
from regmix.exports.checkpoint import Checkpointed, choose
from regmix.exports.export import FORMATS, Exported, export
from regmix.exports.hub import connect, push

__all__ = ["FORMATS", "TOLERANCE", "Checkpointed", "Exported", "choose", "connect", "export", "push"]
