"""A rough copy of the model that screens attacks, and its shortcuts; only the model itself decides.

May import what evaluation may.
"""

from regmix.evaluation.screening.rough_copy import SCREENED, NoCopy, screened

__all__ = ["SCREENED", "NoCopy", "screened"]
