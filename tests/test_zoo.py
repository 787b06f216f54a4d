"""Names, sizes and overrides of the models; methods that know nothing of each other."""

import itertools

import grimp
import jax
import pytest

from avit_jax import UserError, create_model, list_models, zoo

PUBLISHED = {
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "deit_base_patch16_224": 86_567_656,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_small_distilled_patch16_224": 22_436_432,
    "deit_base_distilled_patch16_224": 87_338_192,
    "deit_base_patch16_384": 86_859_496,
    "deit_base_distilled_patch16_384": 87_630_032,
    "vit_tiny_patch16_224": 5_717_416,
    "vit_large_patch16_224": 304_326_632,
    "vit_large_patch16_384": 304_715_752,
    # Published as 4.3, 5.9, 6.9, 21.5, 39.2 and 64.1 million.
    "t2t_vit_7": 4_310_222,
    "t2t_vit_10": 5_889_230,
    "t2t_vit_12": 6_941_902,
    "t2t_vit_14": 21_545_550,
    "t2t_vit_19": 39_177_422,
    "t2t_vit_24": 64_105_934,
}
GMACS = {  # as published, and to more digits
    "deit_tiny_patch16_224": ("1.3", 1.254),
    "deit_small_patch16_224": ("4.6", 4.599),
    "deit_base_patch16_224": ("17.6", 17.564),
    "t2t_vit_7": ("1.1", 1.147),
    "t2t_vit_12": ("1.8", 1.763),
    "t2t_vit_14": ("4.8", 4.783),
    "t2t_vit_19": ("8.5", 8.480),
    "t2t_vit_t_14": ("6.1", 6.089),
    "t2t_vit_t_19": ("9.8", 9.785),
    "t2t_vit_t_24": ("15.0", 14.967),
}
BACKBONES = {
    name for backbone in zoo.BACKBONES for family in backbone.FAMILIES for name in family.members
}


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_parameter_counts_are_the_published_ones(name, count):
    assert create_model(name).num_params() == count


@pytest.mark.parametrize("name", GMACS)
def test_gmacs_are_the_published_ones(name):
    rounded, exact = GMACS[name]
    gmacs = create_model(name).dense_gmacs()
    assert f"{gmacs:.1f}" == rounded
    assert gmacs == pytest.approx(exact, abs=5e-4)


def test_a_vit_is_a_deit_by_another_name():
    names = list_models("vit*_patch16_???")
    assert {name.split("_")[1] for name in names} == {"tiny", "small", "base", "large"}
    for name in set(names) - set(list_models("vit_large*")):
        assert create_model(name) == create_model(name.replace("vit", "deit"))


@pytest.mark.parametrize("name", list_models("avit*"))
def test_every_avit_has_exactly_the_parameters_of_its_deit(name):
    """DeiT has no size large: there it is the ViT."""
    alike = (name.replace("avit", "deit"), name.replace("avit", "vit"))
    known = [backbone for backbone in alike if backbone in BACKBONES]
    backbone = known[0] if known else name.removeprefix("avit_")
    avit, deit = create_model(name), create_model(backbone)
    assert avit.shape == deit.shape
    assert jax.tree.structure(avit.abstract_params()) == jax.tree.structure(deit.abstract_params())
    assert avit.abstract_params() == deit.abstract_params()


@pytest.mark.parametrize("name", list_models("adavit*"))
def test_every_adavit_has_the_parameters_of_its_backbone_and_policies(name):
    adavit, plain = create_model(name), create_model(name.removeprefix("adavit_"))
    assert adavit.shape == plain.shape
    params, width = adavit.abstract_params(), adavit.shape.embed_dim
    policies = params.pop("policies")
    assert params == plain.abstract_params()
    depth, heads = adavit.shape.depth, adavit.shape.num_heads
    assert {kind: policy["kernel"].shape for kind, policy in policies.items()} == {
        "heads": (depth - 1, width, heads),
        "layers": (depth - 1, width, 2),
        "tokens": (depth, width, 1),
    }


def test_no_method_imports_another_one():
    graph = grimp.build_graph("avit_jax", exclude_type_checking_imports=False, cache_dir=None)
    methods = [method.__name__ for method in zoo.METHODS]
    for one, other in itertools.permutations(methods, 2):
        chains = graph.find_shortest_chains(importer=one, imported=other, as_packages=True)
        assert not chains


def test_list_models_is_sorted_and_knows_shell_patterns():
    everything = list_models()
    assert everything == sorted(set(everything))
    assert set(PUBLISHED) < set(everything)
    avits = list_models("avit*")
    assert avits == [name for name in everything if name.startswith("avit")]
    assert list_models("[ad]?*it_tiny_patch16_???") == [
        "adavit_deit_tiny_patch16_224", "adavit_deit_tiny_patch16_384",
        "avit_tiny_patch16_224", "avit_tiny_patch16_384",
        "deit_tiny_patch16_224", "deit_tiny_patch16_384",
    ]  # fmt: skip
    assert list_models("resnet*") == []


@pytest.mark.parametrize("name", list_models("*_patch*"))
def test_names_say_what_the_models_are(name):
    model = create_model(name)
    if name.endswith("_dinov2"):  # timm's names of those say nothing about the image
        assert f"_patch{model.shape.patch_size}_" in name and model.shape.image_size == 518
        assert ("_reg4_" in name) == (model.shape.num_registers == 4)
    else:
        *_, patch, image = name.removesuffix(".dino").split("_")
        assert (f"patch{model.shape.patch_size}", str(model.shape.image_size)) == (patch, image)
    assert model.shape.distilled == ("distilled" in name)
    assert name in BACKBONES if model.name == "dense" else name.startswith(f"{model.name}_")


def test_an_unknown_model_is_refused_with_names_like_it():
    with pytest.raises(UserError, match="unknown: choose one of avit_tiny_patch16_") as refusal:
        create_model("avit_tiny_patch16")
    assert f"list_models() has all {len(list_models())}" in str(refusal.value)
    assert len(str(refusal.value)) < 400
    with pytest.raises(UserError, match=r"'something_else' is unknown: list_models\(\) has all"):
        create_model("something_else")


def test_unknown_sizes_are_refused_with_the_valid_ones():
    with pytest.raises(
        ValueError, match="unknown settings heads, width: valid ones are"
    ) as refusal:
        create_model("avit_micro_patch4_32", width=3, heads=2)
    assert all(name in str(refusal.value) for name in ("embed_dim", "num_heads", "drop_path_rate"))


def test_unknown_settings_of_a_method_are_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="unknown settings gate: valid ones are") as refusal:
        create_model("avit_micro_patch4_32", method={"gate": 5})
    assert all(name in str(refusal.value) for name in ("gate_scale", "ponder_weight", "prior"))
    with pytest.raises(ValueError, match="unknown settings gate_scale: valid ones are none"):
        create_model("deit_micro_patch4_32", method={"gate_scale": 5.0})


def test_overrides_reach_backbone_and_method_and_leave_the_rest():
    model = create_model("avit_tiny_patch16_224", method={"gate_center": 20.0}, num_classes=7)
    assert (model.shape.num_classes, model.shape.embed_dim) == (7, 192)
    assert (model.settings.gate_center, model.settings.gate_scale) == (20.0, 10.0)


def test_creating_a_model_twice_gives_equal_models_that_can_be_cached():
    prior = [{"name": "gaussian", "weight": 1.0}]
    first, second = (
        create_model("avit_micro_patch4_32", method={"prior": prior}) for _ in range(2)
    )
    assert first == second
    assert hash(first) == hash(second)
