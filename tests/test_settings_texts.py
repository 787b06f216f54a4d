"""What is written beside a field is found, in each of the four places."""

import dataclasses

import pytest

from avit_jax import settings_texts


@dataclasses.dataclass
class Parent:
    """One sentence.

    Attributes:
        listed: in the docstring, which goes
          on here.
        one, other: of both.
    """

    listed: int = 1
    one: int = 1
    other: int = 1


@dataclasses.dataclass
class Section(Parent):
    """Another sentence."""

    # Above it,
    # in two lines.
    above: int = 1
    behind: int = 1  # behind it
    # Above,
    both: int = 1  # then behind it
    below: int = 1
    """Below it."""
    barred: str = "a|b"  # a | b
    nothing: int = 1


@pytest.mark.parametrize(
    "name, text",
    [
        ("listed", "in the docstring, which goes on here."),
        ("one", "of both."),
        ("other", "of both."),
        ("above", "Above it, in two lines."),
        ("behind", "behind it"),
        ("both", "Above, then behind it"),
        ("below", "Below it."),
        ("barred", r"a \| b"),
    ],
)
def test_the_text_of_a_field_is_found(name, text):
    assert settings_texts.of_fields(Section)[name] == text


def test_a_field_without_a_text_has_none():
    assert "nothing" not in settings_texts.of_fields(Section)


def test_a_summary_leaves_attributes_out():
    assert settings_texts.summary(Parent) == "One sentence."
