"""The page of settings says what there is in a config, and what each is for."""

import re
from pathlib import Path

import pytest

from avit_jax import config as configs
from avit_jax import settings_table
from avit_jax.config.model import declared
from avit_jax.config.settings import flat

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
_ROW = re.compile(r"^\| `config\.([\w.]+)` \| (.*) \| (.*) \| (.*) \|$", flags=re.MULTILINE)
# Named models of every backbone and method.
NAMES = ("vit_tiny_patch16_224", "avit_tiny_patch16_224", "adavit_t2t_vit_14")


def rows() -> dict[str, tuple[str, str, str]]:
    """Default, "may change" and text of each key."""
    return {key: tuple(cells) for key, *cells in _ROW.findall(settings_table.page())}


def test_the_committed_page_is_the_one_that_the_code_prints():
    command = "python -m avit_jax.settings_table > docs/configuration.md"
    assert PAGE.read_text() == settings_table.page(), f"run {command}"


def test_every_setting_says_what_it_is():
    assert [key for key, (_, _, text) in rows().items() if not text] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_config_has_its_row_and_what_may_change_says_so(name):
    keys = {key for key, _ in flat(declared(name))} - {"model.name"}
    shown = {key: when for key, (_, when, _) in rows().items()}
    alike = ("method.layers_loss", "method.tokens_loss")  # they share the rows of heads_loss
    keys = {key for key in keys if not key.startswith(alike)}
    assert keys <= shown.keys()
    config = configs.base(model=name)
    changeable = configs.changeable_keys(config) & keys
    of_use = (configs.keys_of_use(config) & keys) - changeable
    assert {key for key in keys if shown[key] == "on the way"} == changeable
    assert {key for key in keys if shown[key] == "in use"} == of_use
