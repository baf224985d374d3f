"""A recipe for your own images."""

from regmix.config import Cosine, Ema, Experiment
from regmix.data import Folder
from regmix.methods import RegMix
from regmix.models import ResNet
from regmix.threats import Linf


def photos() -> Experiment:
    """RegMix on your own images, one folder per class; give --data.root FOLDER, and --init WEIGHTS to fine-tune.

    AdamW with a cosine and a ramp on eps and on RegMix's weights, because SGD at the learning rates of CIFAR-10
    destroys weights that were trained before. eps is 4/255, as is usual for photographs. RegMix's weights fit any
    number of classes. Images are not mirrored, because signs and letters mean something else in a mirror; --flip
    mirrors.
    """
    return Experiment(
        data=Folder(root="photos", size=64),
        model=ResNet(width=32),
        threat=Linf(eps=4 / 255),
        method=RegMix(weights="auto"),
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.05,
        decayed="weights",
        schedule=Cosine(),
        averaging=Ema(limit=0.99),
        best_of="either",
        epochs=30,
        batch_size=64,
        ramp=0.3,
        pad=4,
        validation=None,
    )
