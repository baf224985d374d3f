"""Recipes: functions without arguments that return an Experiment; the first line of the docstring describes it."""

from collections.abc import Callable

from regmix.config import Experiment
from regmix.recipes.cifar import cifar10_fgsm_pgk, cifar10_regmix, cifar10_regmix_cpu, cifar100_regmix
from regmix.recipes.digits import digits_regmix
from regmix.recipes.fastat import fastat_cifar10, fastat_cifar10_cpu, fastat_cifar100, fastat_tiny_imagenet
from regmix.recipes.photos import photos
from regmix.recipes.tiny_imagenet import tiny_imagenet_regmix
from regmix.types import known

Recipe = Callable[[], Experiment]

RECIPES: dict[str, Recipe] = {
    recipe.__name__.replace("_", "-"): recipe
    for recipe in (
        digits_regmix,
        photos,
        cifar10_regmix_cpu,
        cifar10_regmix,
        cifar10_fgsm_pgk,
        cifar100_regmix,
        tiny_imagenet_regmix,
        fastat_cifar10_cpu,
        fastat_cifar10,
        fastat_cifar100,
        fastat_tiny_imagenet,
    )
}


def recipe(name: str) -> Experiment:
    """The experiment of the recipe with this name. Raises UserError if there is none."""
    return RECIPES[known(name, RECIPES, "recipe", see="regmix recipes")]()
