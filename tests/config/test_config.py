"""Every config file describes a model, survives JSON, and refuses what contradicts itself."""

import importlib.util
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax import list_models, zoo
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


def changed(**values) -> ConfigDict:
    """The base config with some values changed; `section__key` names them."""
    config = configs.base(model="avit_micro_patch4_32")
    for name, value in values.items():
        section, _, key = name.rpartition("__")
        (config[section] if section else config)[key] = value
    return config


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
    assert config.model.name in list_models(f"{name.split('_')[0]}_*")
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


@pytest.mark.parametrize(
    ("name", "gate", "rate"), [("avit_tiny", (10, 30), 5e-4), ("avit_small", (10, 75), 3e-4)]
)
def test_fine_tuning_has_the_published_hyperparameters(name, gate, rate):
    config = load(name)
    method = config.method
    assert (method.gate_scale, method.gate_center) == gate
    assert (method.ponder_weight, method.prior_weight) == (5e-4, 1e-3)
    assert (config.optim.learning_rate, config.optim.reference_batch_size) == (rate, 512)
    assert config.train.epochs == 100
    assert config.optim.warmup * config.train.epochs == pytest.approx(5)


def test_the_published_weights_come_with_their_pixels_and_their_crop():
    config = load("vit_augreg", "large")
    assert config.model.name == "vit_large_patch16_224"
    assert config.init.weights == "hf://timm/vit_large_patch16_224.augreg_in21k_ft_in1k"
    assert (config.init.pixels, config.data.augment.crop_ratio) == ("symmetric", 0.9)
    with pytest.raises(UserError, match="one size, not base and large"):
        load("vit_augreg", "base,large")


def test_parse_arg_switches_on_what_is_named():
    assert configs.parse_arg(None, ci=False).to_dict() == {"debug": False, "ci": False}
    assert configs.parse_arg("", ci=False).to_dict() == {"debug": False, "ci": False}
    assert configs.parse_arg("ci,debug", ci=False).to_dict() == {"debug": True, "ci": True}


def test_parse_arg_names_the_valid_variants():
    with pytest.raises(UserError, match="no variant 'fast': write one of ci, debug behind"):
        configs.parse_arg("debug,fast", ci=False)


def test_the_shortened_digits_config_differs_in_its_length_only():
    full, short = load("avit_digits"), load("avit_digits", "ci")
    differing = configs.differences(short, configs.to_json(full))
    assert set(differing) == {"train.epochs"}
    assert short.train.epochs < full.train.epochs


def test_differences_show_both_values():
    saved = configs.to_json(changed())
    config = changed(train__batch_size=8, data__dir="elsewhere")
    assert list(configs.differences(config, saved).values()) == [
        "data.dir: None -> 'elsewhere'",
        "train.batch_size: 1024 -> 8",
    ]


def test_differences_show_keys_that_only_one_of_the_two_has():
    dense = configs.to_json(configs.base(model="deit_micro_patch4_32"))
    adaptive = configs.base(model="avit_micro_patch4_32")
    assert configs.differences(adaptive, dense)["method.eps"] == "method.eps: 'absent' -> 0.01"
    dense_again = configs.base(model="deit_micro_patch4_32")
    changed = configs.differences(dense_again, configs.to_json(adaptive))
    assert changed["method.eps"] == "method.eps: 0.01 -> 'absent'"


MIXTURES = [
    [
        {"name": "gaussian", "target_depth": 2.0, "scale": 1.0, "weight": 0.7},
        {"name": "laplace", "target_depth": 5.0, "scale": 1.0, "weight": 0.3},
    ],
    [{"name": "gaussian", "weight": 1.0}, {"name": "uniform", "weight": 2.0}],
    [{"name": "uniform"}],
]


@pytest.mark.parametrize("prior", MIXTURES)
def test_a_mixture_prior_goes_through_config_and_json_to_the_model(prior):
    config = configs.base(model="avit_micro_patch4_32", method={"prior": prior})
    restored = configs.from_json(configs.to_json(config))
    expected = zoo.create_model("avit_micro_patch4_32", method={"prior": prior})
    assigned = configs.base(model="avit_micro_patch4_32")
    before = configs.to_json(assigned)
    assigned.method.prior = prior
    assert len(configs.differences(assigned, before)) == 1
    assert configs.differences(assigned, configs.to_json(config)) == {}
    assert configs.make_model(assigned) == expected
    assert configs.make_model(config) == expected
    assert configs.make_model(restored) == expected
    assert expected.settings.depth_prior(6).shape == (6,)


def test_a_mixture_may_be_pairs_and_anything_else_is_refused():
    config = configs.base(model="avit_micro_patch4_32")
    config.method.prior = ((("name", "gaussian"), ("weight", 1.0)), {"name": "uniform"})
    text = configs.to_json(config)
    assert configs.differences(configs.from_json(text), text) == {}
    assert configs.make_model(configs.from_json(text)) == configs.make_model(config)
    for wrong in (5, ["gaussian"], [("gaussian", 3.0)], [3], []):
        config.method.prior = wrong
        with pytest.raises(UserError, match=r"prior is |component of the prior is "):
            configs.make_model(config)


@pytest.mark.parametrize(
    ("model", "section", "key", "value"),
    [
        ("avit_micro_patch4_32", "method", "prior_compat", "nvlabs"),
        ("t2t_vit_14", "model", "attention_scale", 0.05),
    ],
)
def test_what_is_unset_takes_values_of_its_type_only(model, section, key, value):
    config = configs.base(model=model)
    assert config[section][key] is None
    config[section][key] = value
    assert configs.to_json(config) != configs.to_json(configs.base(model=model))
    with pytest.raises(TypeError):
        config[section][key] = [1]


@pytest.mark.parametrize("model", ["avit_base_patch16_224", "t2t_vit_14_resnext", "avit_t2t_vit_7"])
def test_debug_cuts_the_width_and_keeps_the_heads(model):
    config = configs.debug(configs.base(model=model))
    shape = configs.make_model(config).shape
    full = zoo.create_model(model).shape
    assert shape.embed_dim <= 192
    assert shape.embed_dim // shape.num_heads == full.embed_dim // full.num_heads


@pytest.mark.parametrize("text", ["", '{"a', "[]", "{}", "\xff"])
def test_a_damaged_config_of_a_run_is_named(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config.json is damaged .*: put a sound copy"):
        configs.read(tmp_path / "config.json")


POSITIVE = [
    ("train__batch_size", 0), ("train__accumulation", 0), ("train__epochs", -1.0),
    ("eval__batch_size", 0), ("eval__every", 0.0), ("checkpoint__every", 0.0),
    ("checkpoint__keep", 0), ("log__every", -5), ("optim__learning_rate", 0.0),
    ("optim__learning_rate", float("nan")), ("optim__reference_batch_size", 0),
    ("optim__eps", 0.0),
]  # fmt: skip
SHARES = [
    ("train__ema_decay", 1.0), ("train__label_smoothing", -0.1), ("optim__warmup", 1.5),
    ("optim__min_learning_rate", 1.0), ("data__max_bad_share", float("nan")),
    ("optim__b1", 2.0), ("optim__b2", 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), POSITIVE)
def test_what_must_be_positive_is_named_with_its_value(name, value):
    key = name.replace("__", ".")
    with pytest.raises(UserError, match=f"^config.{key} is {value}: write a number above 0.$"):
        configs.Settings.of(changed(**{name: value}))


@pytest.mark.parametrize(("name", "value"), SHARES)
def test_what_must_be_a_share_is_named_with_its_value(name, value):
    key = name.replace("__", ".")
    with pytest.raises(UserError, match=f"^config.{key} is {value}: write a share"):
        configs.Settings.of(changed(**{name: value}))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": -1}, "config.seed is -1: write a number from 0 to 4294967295."),
        ({"seed": 2**32}, "config.seed is 4294967296: write a number from 0 to 4294967295."),
        ({"train__steps": 0}, "config.train.steps is 0: write at least 1, or leave it out."),
        (
            {"train__batch_size": 10, "train__accumulation": 4},
            "batch_size 10 is not a multiple of config.train.accumulation 4: change one of them.",
        ),
        (
            {"train__on_nonfinite": "ignore"},
            "on_nonfinite is 'ignore': write one of stop, rollback.",
        ),
        (
            {"init__workdir": "runs/a", "init__weights": "b.pth"},
            "config.init.workdir is 'runs/a' and config.init.weights 'b.pth', but a model starts "
            "from one of them: leave the other out.",
        ),
        ({"init__pixels": "raw"}, "init.pixels is 'raw': write one of imagenet, symmetric, or"),
        (
            {"teacher__workdir": "runs/a", "teacher__weights": "b.pth"},
            "config.teacher.workdir is 'runs/a' and config.teacher.weights 'b.pth', but a student "
            "has one of them: leave the other out.",
        ),
        ({"teacher__pixels": "raw", "teacher__weights": "b.pth"}, "teacher.pixels is 'raw': write"),
        (
            {"teacher__workdir": "runs/a", "teacher__model": "deit_tiny_patch16_224"},
            "says itself which model it is: leave one of them out.",
        ),
        (
            {"teacher__hidden": 0.2},
            "config.teacher.hidden is 0.2, but there is no teacher: write --config.teacher.workdir",
        ),
        ({"teacher__model": "deit"}, "config.teacher.model is 'deit', but there is no teacher"),
        ({"teacher__attention": -1.0}, "config.teacher.attention is -1.0: write 0 or more."),
        ({"teacher__temperature": 0.0}, "temperature is 0.0: write a number above 0."),
        ({"eval__weights": "best"}, "eval.weights is 'best': write one of auto, ema, raw."),
        ({"eval__weights": "ema"}, "there is no moving average: write auto or raw, or train with"),
    ],
)
def test_contradictions_are_refused_with_what_to_write(values, sentence):
    with pytest.raises(UserError) as refusal:
        configs.Settings.of(changed(**values))
    assert sentence in str(refusal.value)


def test_what_is_allowed_passes():
    configs.Settings.of(
        changed(train__steps=1, eval__weights="raw", train__on_nonfinite="rollback")
    )
    configs.Settings.of(changed(teacher__workdir="runs/a", teacher__attention=0.0))
    configs.Settings.of(changed(eval__weights="ema", train__ema_decay=0.99, train__accumulation=4))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"model__image_size": 30}, "image_size 30"),
        ({"method__eps": 2.0}, "eps is 2.0"),
        ({"method__gate_scale": float("inf")}, "gate_scale is inf: write a finite number"),
        ({"method__gate_center": float("nan")}, "gate_center is nan: write a finite number"),
        ({"method__ponder_weight": -1.0}, "ponder_weight is -1.0: write 0 or more"),
        ({"method__prior_weight": float("nan")}, "prior_weight is nan: write 0 or more"),
    ],
)
def test_a_model_that_cannot_be_is_refused_when_it_is_made(values, found):
    with pytest.raises(ValueError, match=found):
        configs.make_model(changed(**values))
