"""The page of models says what the models are."""

from pathlib import Path

from avit_jax import list_models, models_table
from avit_jax.zoo import families

PUBLISHED = {name: known for family in families() for name, known in family.published.items()}
PAGE = Path(__file__).parents[1] / "docs" / "models.md"


def test_the_committed_page_is_the_one_that_the_models_print():
    command = "python -m avit_jax.models_table > docs/models.md"
    assert PAGE.read_text() == models_table.page(), f"run {command}"


def test_every_model_has_its_row_and_every_published_one_exists():
    text = PAGE.read_text()
    assert all(f"\n| `{name}` |" in text for name in list_models())
    assert set(PUBLISHED) <= set(list_models())


def test_an_address_names_the_model_it_is_for():
    for name, published in PUBLISHED.items():
        assert not published.loadable or f"{published.weights}.".startswith(f"hf://timm/{name}.")
        assert published.loadable or published.weights == published.source[1]
