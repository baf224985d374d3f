"""Evaluation: which test examples survive which attack, checked and saved, and whether the numbers can be believed."""

from regmix.attacks import CLEAN
from regmix.evaluation.answers import ask, check_tensors, gradient_fault, like_probabilities
from regmix.evaluation.chunks import Journal, repeatable
from regmix.evaluation.curve import curve, distances
from regmix.evaluation.evaluator import Evaluator, Survivors
from regmix.evaluation.examples import Examples, collect_examples
from regmix.evaluation.flatness import Flatness, flatness
from regmix.evaluation.masking import probe, verdict
from regmix.evaluation.one_answer import one_answer
from regmix.evaluation.one_batch import predict
from regmix.evaluation.outcomes import Outcomes, paired, wilson
from regmix.evaluation.planes import Plane, image_planes, weight_plane
from regmix.evaluation.preflight import CHANCE, RANDOM, preflight, zero_gradients
from regmix.evaluation.rounding import to_uint8
from regmix.evaluation.sequential import at_every_look
from regmix.evaluation.table import evaluate, not_attacked_note
from regmix.runs.records import Paired, Probe, Verdict

__all__ = [
    "CHANCE",
    "CLEAN",
    "RANDOM",
    "Evaluator",
    "Examples",
    "Flatness",
    "Journal",
    "Outcomes",
    "Paired",
    "Plane",
    "Probe",
    "Survivors",
    "Verdict",
    "ask",
    "at_every_look",
    "check_tensors",
    "collect_examples",
    "curve",
    "distances",
    "evaluate",
    "flatness",
    "gradient_fault",
    "image_planes",
    "like_probabilities",
    "not_attacked_note",
    "one_answer",
    "paired",
    "predict",
    "preflight",
    "probe",
    "repeatable",
    "to_uint8",
    "verdict",
    "weight_plane",
    "wilson",
    "zero_gradients",
]
