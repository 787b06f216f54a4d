"""Every config file describes a model, survives JSON, and is what it promises to be."""

import importlib.util
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax import list_models
from avit_jax.errors import UserError

FOLDER = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
TWINS = ["digits", "tiny_imagenette"]


def module(name: str):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def load(name: str, arg: str | None = None) -> ConfigDict:
    return module(name).get_config(arg)


def test_the_promised_experiments_are_there():
    assert set(NAMES) >= {
        "avit_tiny", "avit_small", "avit_base", "deit_tiny", "deit_small", "deit_base",
        "avit_digits", "deit_digits", "avit_tiny_imagenette", "deit_tiny_imagenette",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", [None, "debug"])
def test_every_config_is_valid_and_describes_a_model(name, arg):
    config = load(name, arg)
    configs.Settings.of(config)
    model = configs.make_model(config)
    family = "avit" if name == "finetune" else name.split("_")[0]
    assert config.model.name in list_models(f"{family}_*")
    for key, value in config.model.items():
        if key != "name":
            assert getattr(model.shape, key) == value
    assert model.num_params() > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", [None, "debug"])
def test_every_config_survives_json(name, arg):
    config = load(name, arg)
    text = configs.to_json(config)
    restored = configs.from_json(text)
    assert configs.to_json(restored) == text
    assert configs.differences(config, text) == {}
    assert configs.make_model(restored) == configs.make_model(config)
    configs.Settings.of(restored)


@pytest.mark.parametrize("name", NAMES)
def test_a_configs_docstring_holds_its_own_launch_command(name):
    command = f"    python -m avit_jax.main --config configs/{name}.py"
    lines = module(name).__doc__.splitlines()
    assert any(line == command or line.startswith(command + " ") for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_debug_is_small_and_needs_no_download(name):
    config = load(name, "debug")
    assert (config.data.name, config.data.dir, config.model.num_classes) == ("digits", None, 10)
    assert config.model.image_size == 32
    assert config.model.depth <= 3
    assert config.train.steps <= 10
    assert config.init.scratch
    assert {key for key, value in config.init.items() if value is not None} == {"scratch"}


@pytest.mark.parametrize("name", NAMES)
def test_configs_are_locked_typed_and_refuse_unknown_variants(name):
    config = load(name)
    with pytest.raises(AttributeError):
        config.train.bach_size = 3
    with pytest.raises(TypeError):
        config.train.batch_size = "many"
    with pytest.raises(UserError, match=r"no variant 'debgu'.*debug"):
        load(name, "debgu")


@pytest.mark.parametrize("name", TWINS)
def test_twins_share_everything_but_the_model_and_its_method(name):
    avit, deit = load(f"avit_{name}"), load(f"deit_{name}")
    changed = configs.differences(avit, configs.to_json(deit))
    assert {key for key in changed if not key.startswith("method.")} == {"model.name", "dense_twin"}
    assert avit.model.name.removeprefix("avit") == deit.model.name.removeprefix("deit")
    assert avit.dense_twin == f"runs/deit_{name}"


# Of the commands in the README of A-ViT's repository: four GPUs with 128 and with 96 images each.
PUBLISHED = [("avit_tiny", (10, 30), 5e-4, 4 * 128), ("avit_small", (10, 75), 3e-4, 4 * 96)]


@pytest.mark.parametrize(("name", "gate", "rate", "batch_size"), PUBLISHED)
@pytest.mark.parametrize("arg", [None, "light"])
def test_fine_tuning_has_the_published_hyperparameters(name, gate, rate, batch_size, arg):
    config = load(name, arg)
    method = config.method
    assert (method.gate_scale, method.gate_center) == gate
    assert (method.ponder_weight, method.prior_weight) == (5e-4, 1e-3)
    assert (config.optim.learning_rate, config.optim.reference_batch_size) == (rate, 512)
    assert config.train.epochs == 100
    assert config.train.batch_size == (1024 if arg == "light" else batch_size)
    epochs = config.optim.warmup_epochs or config.optim.warmup * config.train.epochs
    assert epochs == pytest.approx(5)


@pytest.mark.parametrize("name", ["deit_tiny", "deit_small", "deit_base"])
def test_dense_models_are_trained_by_the_defaults_of_deits_code(name):
    """Those of its main.py, whose loop ends in front of the cool-down that it asks for."""
    config = load(name)
    optim, train = config.optim, config.train
    assert (train.batch_size, train.epochs, optim.cooldown_epochs) == (1024, 310, 10)
    assert (optim.name, optim.learning_rate, optim.reference_batch_size) == ("adamw", 5e-4, 512)
    assert (optim.warmup_epochs, optim.warmup_start, optim.min_rate) == (5, 1e-6, 1e-5)
    assert optim.cosine_under_warmup
    assert (optim.weight_decay, optim.clip_norm, optim.eps) == (0.05, 0, 1e-8)
    assert (train.label_smoothing, train.ema_decay, train.loss) == (0.1, 0.99996, "cross_entropy")
    assert (config.model.drop_path_rate, config.model.dropout_rate) == (0.1, 0)
    mix = config.data.mix
    assert (mix.mixup, mix.cutmix, mix.probability, mix.cutmix_share) == (0.8, 1.0, 1.0, 0.5)


@pytest.mark.parametrize("name", ["deit_small", "avit_small"])
def test_a_distilled_model_learns_as_deits_and_may_be_evaluated_without_its_teacher(name):
    config = load(name, "distilled")
    assert config.model.name == f"{name}_distilled_patch16_224"
    teacher = configs.Settings.of(config).teacher
    assert (teacher.answers, teacher.logits, teacher.labels, teacher.features) == (
        "hard", 0.5, 0.5, False,
    )  # fmt: skip
    with pytest.raises(UserError, match="there is no teacher: write --config"):
        teacher.refuse_without_origin()
    configs.Settings.of(load(name, "distilled,debug")).teacher.refuse_without_origin()


def test_a_small_model_from_scratch_learns_densely_first_as_long_as_its_dense_twin():
    config, dense = load("avit_small", "scratch"), load("deit_small")
    assert config.init.scratch and config.method.dense_until > 0
    assert (config.train.epochs, config.optim) == (dense.train.epochs, dense.optim)
    with pytest.raises(UserError, match="from scratch or is light: write one of the two"):
        load("avit_small", "scratch,light")


@pytest.mark.parametrize(("size", "center"), [("tiny", 30), ("small", 75)])
def test_photographs_are_learnt_from_published_weights_with_the_gate_made_for_them(size, center):
    config = load("finetune", None if size == "tiny" else size)
    assert config.model.name == f"avit_{size}_patch16_224"
    assert (config.method.gate_scale, config.method.gate_center) == (10, center)
    assert not config.init.scratch


def test_the_published_weights_come_with_their_pixels_and_their_crop():
    config = load("vit_augreg", "large")
    assert config.model.name == "vit_large_patch16_224"
    assert config.init.weights == "hf://timm/vit_large_patch16_224.augreg_in21k_ft_in1k"
    assert (config.init.pixels, config.data.augment.crop_ratio) == ("symmetric", 0.9)
    with pytest.raises(UserError, match="one size, not base and large"):
        load("vit_augreg", "base,large")


def test_the_shortened_digits_config_differs_in_its_length_only():
    full, short = load("avit_digits"), load("avit_digits", "ci")
    differing = configs.differences(short, configs.to_json(full))
    assert set(differing) == {"train.epochs"}
    assert short.train.epochs < full.train.epochs
