"""A fast copy of the model that screens attacks, and its shortcuts; only the model itself decides what is broken."""

from regmix.evaluation.screening.rough_copy import SCREENED, NoCopy, screened

__all__ = ["SCREENED", "NoCopy", "screened"]
