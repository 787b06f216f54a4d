"""What the published recipes say of images."""

import pytest

from avit_jax import config as configs
from avit_jax.config import recipes
from avit_jax.errors import UserError


def test_deits_images_are_those_of_its_published_command():
    config = configs.base(model="deit_small_patch16_224")
    recipes.imagenet_from_scratch(config)
    data = configs.Settings.of(config).data
    assert data.repeats == 3
    assert data.augment.randaugment == "rand-m9-mstd0.5-inc1"
    assert (data.augment.interpolation, data.augment.color_jitter) == ("bicubic", 0.0)
    assert (data.erase.probability, data.erase.mode) == (0.25, "pixel")
    assert (data.mix.mixup, data.mix.cutmix, data.mix.probability) == (0.8, 1.0, 1.0)
    assert (data.mix.cutmix_share, data.mix.per, data.mix.group) == (0.5, "batch", 256)
    assert data.mix.end_epoch == 0.0


def test_a_batch_that_makes_no_whole_groups_is_refused():
    config = configs.base(model="deit_micro_patch4_32")
    config.train.batch_size = 10
    config.data.mix.update(per="batch", group=4)
    with pytest.raises(UserError, match=r"group is 4, of which 10 images a step .* no multiple"):
        configs.Settings.of(config)


def test_a_config_of_before_means_what_it_meant():
    config = configs.base(model="deit_micro_patch4_32")
    data = configs.Settings.of(config).data
    assert (data.repeats, data.augment.randaugment, data.augment.color_jitter) == (1, None, 0.0)
    assert (data.erase.probability, data.mix.per, data.mix.end_epoch) == (0.0, "image", 0.0)
