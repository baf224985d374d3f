"""As many images as an answer needs: when an evaluation that looks at its results again and again may stop.

The split is finite and is sampled without replacement, so the quantity is the accuracy on the whole split: what an
evaluation of all of its N images would show. The numbers of images at which one looks are fixed before (`looks`). At a
look with k of n images correct, a column is narrow if the exact hypergeometric interval at LEVEL (Clopper and Pearson's
construction: all K with P(X >= k | K) and P(X <= k | K) above (1 - LEVEL) / 2) reaches at most `within` below and above
k / n. The evaluation ends at the first look at which every column is narrow, and then states k / n +- within.

Why it keeps its coverage although one looks often: the column misses only if at some look it is narrow and the truth
lies outside of k / n +- within, so outside of the exact interval of that look. Looks much before the one that the
truth needs are narrow only by rare accidents, and looks after it miss rarely, because the error of k / n shrinks while
`within` stays. The probability of a miss at any look is a sum over the paths of a Markov chain (the counts at the
looks), and a test computes it: at most 4.7 % in 207 cases (N from 400 to 20,000, +-1 to +-10 points). It counts a miss
at any look, not only at the one at which this column is narrow first, so it also holds when other columns decide when
to stop.

A difference of two columns is narrow if Agresti and Min's interval is, and if the shares of the images that only the
one and only the other model has right are narrow as columns are. A test computes its misses: at most 3.5 % at any look
where one model is right on all images on which they differ. Where each is right on some of them it was
simulated: with 8 and 5 % of 10,000 images and +-1 point, 4.5 % of 30,000 samples missed at any look, and 3.4 % at the
first narrow one.

Betting and empirical-Bernstein confidence sequences (arXiv 2010.09686, 2006.04347) allow a look after every image, and
pay for that with about twice the images; a two-stage rule in the way of Stein may end with an interval that is wider
than asked for.

The chain is that of a simple random sample. A stratified sample has a smaller variance, but for the factor (N - 1) /
(N - classes) at most, where all classes have the same accuracy; `within` is divided by its root in the comparison.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass

LEVEL, Z = 0.96, 2.053749
"""Of the exact interval at every look, and the two-sided quantile of the normal distribution that belongs to it."""
FIRST, GROWTH = 50, 1.1
"""Images at the first look, and how many times as many at each next one."""


@dataclass(frozen=True)
class Rule:
    """When to stop: every interval is at most +-`within` (a share, such as 0.01 for one point)."""

    total: int
    """Images in the split."""
    classes: int
    within: float

    def looks(self) -> list[int]:
        """The numbers of images at which to look; the last is the whole split.

        Where not even a column of one value would be narrow, there is nothing to look for.
        """
        numbers = [min(FIRST, self.total)]
        while numbers[-1] < self.total:
            numbers.append(min(self.total, math.ceil(numbers[-1] * GROWTH)))
        return [count for count in numbers if self.is_narrow(0, count)]

    @property
    def _asked(self) -> float:
        spare = self.total - self.classes
        return self.within * math.sqrt(spare / (self.total - 1)) if spare > 0 and self.total > 1 else 0.0

    def is_narrow(self, correct: int, count: int) -> bool:
        """Whether the accuracy after `count` images is known well enough."""
        if count == self.total:
            return True
        share = correct / count
        low, high = exact_interval(correct, count, self.total)
        return high - share <= self._asked and share - low <= self._asked

    def is_narrow_difference(self, gained: int, lost: int, count: int) -> bool:
        """The same for the difference of two columns: `gained` images only the first has right, `lost` the second.

        The half width is that of Agresti and Min, as in `paired`, times the root of the share that is not sampled. As a
        normal approximation it is far too narrow where nearly no image of one kind has been seen, so each of the two
        counts must also be narrow by its exact interval.
        """
        if count == self.total:
            return True
        m = count + 2
        variance = (gained + lost + 1 - (gained - lost) ** 2 / m) / m**2
        half = Z * math.sqrt(variance * (1 - count / self.total))
        return half <= self._asked and self.is_narrow(gained, count) and self.is_narrow(lost, count)

    def interval(self, correct: int, count: int) -> tuple[float, float]:
        """The interval that the rule guarantees: +-within, but no accuracy that the images seen rule out."""
        share, unseen = correct / count, self.total - count
        low, high = correct / self.total, (correct + unseen) / self.total
        return max(low, share - self.within), min(high, share + self.within)

    def difference_interval(self, gained: int, lost: int, count: int) -> tuple[float, float]:
        """The same for the difference of two columns."""
        share, known, unseen = (gained - lost) / count, gained - lost, self.total - count
        low, high = (known - unseen) / self.total, (known + unseen) / self.total
        return max(low, share - self.within), min(high, share + self.within)


def at_every_look(correct: int, count: int, total: int, looks: int) -> tuple[float, float]:
    """The exact 95 % interval that holds at all of so many looks at once (Bonferroni); see `exact_interval`."""
    return exact_interval(correct, count, total, 1 - (1 - LEVEL) / looks)


def exact_interval(correct: int, count: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of the share of `total` that is correct, after `count` of them drawn without replacement."""
    from scipy.stats import hypergeom

    tail, least, most = (1 - level) / 2, correct, total - count + correct

    def likely_as_many(whole: int) -> bool:
        return bool(hypergeom.sf(correct - 1, total, whole, count) > tail)

    def unlikely_as_few(whole: int) -> bool:
        return not hypergeom.cdf(correct, total, whole, count) > tail

    low = least + bisect_left(range(least, most), True, key=likely_as_many)
    high = least - 1 + bisect_left(range(least, most + 1), True, key=unlikely_as_few)
    return low / total, high / total
