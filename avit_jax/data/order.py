"""The order of training examples: a seeded shuffle of each epoch, and repeated augmentation.

Repeated augmentation (arXiv 1901.09335, which DeiT uses) lets an example that was drawn stand at
several positions, whose augmentation differs.
"""

import dataclasses

import grain.python as grain


def shuffled(count: int, *, seed: int, repeats: int) -> grain.MapDataset:
    """Numbers of examples in the order of a training, without end: each epoch is `count` of them.

    With `repeats`, each comes that many times in a row, and an epoch ends after as many numbers as
    before: it sees one in `repeats` of the examples, others each time. So does DeiT's sampler
    (`RASampler`), which also leaves out what does not fill the last 256 of an epoch.
    """
    order = grain.MapDataset.range(count).seed(seed).shuffle()
    drawn = _Repeated(order, count=count, repeats=repeats)
    return grain.MapDataset.range(count).repeat().map_with_index(drawn)


@dataclasses.dataclass(frozen=True)
class _Repeated(grain.MapWithIndexTransform):
    """From a position in the run to the example there."""

    order: grain.MapDataset
    _: dataclasses.KW_ONLY
    count: int
    repeats: int

    def map_with_index(self, position: int, _: int) -> int:
        epoch, place = divmod(position, self.count)
        return self.order[epoch * self.count + place // self.repeats]
