"""The evaluation of run directories: what is asked, what it is about, and the attacks on it.

May import all that trains; compare and the command line import it.
"""

from regmix.assess.assessment import Progress, assess
from regmix.assess.questions import TRANSFER, Asked, Questions, check_attacks, columns_of
from regmix.assess.subject import Chosen, choose_images

__all__ = [
    "TRANSFER",
    "Asked",
    "Chosen",
    "Progress",
    "Questions",
    "assess",
    "check_attacks",
    "choose_images",
    "columns_of",
]
