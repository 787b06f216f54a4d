"""The page is one well-formed file that needs no network and runs nothing but its own script."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from avit_jax.viz import image_statistics, palette
from avit_jax.viz.html_card import card
from avit_jax.viz.html_report import is_report, page
from avit_jax.viz.look import Unreadable

EVIL = '<script>alert(\'x\')</script> & " onerror="alert(1)" \udcff.png'
VOID = {"meta", "img", "source", "input", "br"}


class Page(HTMLParser):
    """Elements of a page with their attributes and text; unclosed or crossed ones are errors."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        """Attributes of the elements of a kind."""
        wanted = {name.rstrip("_"): value for name, value in wanted.items()}
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]


@pytest.fixture
def write(make_looked):
    """A page about one image per class name, the first two answered right and wrong."""

    def write(*names: str, unreadable=(), total=100, labels=(0, 1, None), **changed) -> str:
        looked = [
            make_looked(seed=seed, name=name, answer=0, label=labels[seed], **changed)
            for seed, name in enumerate(names)
        ]
        classes = (EVIL, "bee")
        cards = [
            card(
                one,
                order=order,
                class_names=classes,
                grid=4,
                gmacs_dense=6.0,
                files={"Figure": f"images/{order}.png", "Layers": f"images/{order}.gif"},
            )
            for order, one in enumerate(looked)
        ]
        return page(
            cards,
            unreadable,
            image_statistics.summarise(
                [image_statistics.row(one) for one in looked], classes, gmacs_dense=6.0
            ),
            model=EVIL,
            step=1234,
            data=EVIL,
            total=total,
            notes=[EVIL],
        )

    return write


def test_names_from_outside_stay_text(write):
    text = write("one.png", EVIL, unreadable=[Unreadable(EVIL, f"cannot be {EVIL}")])
    found = Page(text)
    assert len(found.all("script")) == 1
    handlers = [name for _, a in found.elements for name in a if name.startswith("on")]
    assert handlers == []
    shown = EVIL.replace("\udcff", "?")
    assert found.all("img", alt=shown)
    assert found.text.count(shown) >= 6  # heading, data, card, answer, file and reason, note
    text.encode("utf-8")


def test_no_address_leads_out_of_the_page_and_its_folder(write):
    text = write("one.png", "two.png")
    assert not re.search(r"""(src|href|srcset|action)\s*=\s*["']?\s*(https?:)?//""", text)
    assert not re.search(r"@import|url\(", text)
    found = Page(text)
    assert found.all("link") == found.all("iframe") == []
    for tag, name in (("img", "src"), ("source", "srcset")):
        assert all(a[name].startswith("data:image/") for a in found.all(tag))
    assert {a["href"].split("/")[0] for a in found.all("a")} == {"images"}


def test_the_policy_lets_the_pages_own_script_run_and_no_other(write):
    text = write("one.png")
    (policy,) = [a["content"] for a in Page(text).all("meta") if "http-equiv" in a]
    assert "default-src 'none'" in policy
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_every_picture_has_words_in_its_place(write):
    found = Page(write("one.png", "two.png"))
    assert all(a["alt"].strip() for a in found.all("img"))
    assert len(found.all("article")) == 2


def test_the_legend_has_an_entry_for_every_layer_in_the_colour_of_the_maps(write):
    text = write("one.png")
    legend = re.search(r'<ol class="legend".*?</ol>', text, re.DOTALL).group(0)
    entries = re.findall(r"background:(#\w{6});color:#\w{6}\">(\d+)</li>", legend)
    colours = [palette.hexadecimal(colour) for colour in palette.colours(5)]
    assert entries == list(zip(colours, "12345", strict=True))


def test_cards_carry_what_the_gallery_sorts_and_dims_by(write, make_looked):
    found = Page(write("one.png", "two.png", "three.png"))
    cards = found.all("article")
    assert [a["data-right"] for a in cards] == ["1", "0", ""]
    for seed, attributes in enumerate(cards):
        looked = make_looked(seed=seed)
        assert float(attributes["data-depth"]) == pytest.approx(looked.depth.mean(), abs=1e-5)
        assert float(attributes["data-gmacs"]) == pytest.approx(looked.gmacs)
        bits = np.unpackbits(np.frombuffer(base64.b64decode(attributes["data-live"]), np.uint8))
        np.testing.assert_array_equal(bits[:80].reshape(5, 16), looked.live[:, 1:])


def test_what_is_known_of_the_images_is_said(write):
    text = Page(write("one.png", "two.png", unreadable=[Unreadable("x", "is bad")])).text
    for sentence in ("step 1,234", "3 of 100 images, evenly spaced", "and 1 unreadable", "50.0%"):
        assert sentence in text, sentence
    assert "✓ right" in text
    assert "✗ wrong, it is bee" in text
    assert "all 2 images" in Page(write("one.png", "two.png", total=2)).text


def test_without_labels_there_is_neither_accuracy_nor_a_choice_by_it(write):
    found = Page(write("one.png", labels=[None]))
    assert "Accuracy" not in found.text
    assert not found.all("select", id="show")
    assert "Depth per class" not in found.text


def test_heads_and_halves_are_drawn_where_a_method_skips_them(write):
    heads = np.zeros((5, 3), bool)
    heads[:2] = True
    found = Page(write("one.png", heads=heads, halves=np.ones((5, 2), bool)))
    assert len(found.all("rect", class_="on")) == 6 + 10
    assert len(found.all("rect", class_="off")) == 9
    assert "heads run: 40%" in found.text
    assert "halves run: 100%" in found.text
    for words in ("Heads run", "Halves run", "Usage per class", "A head counts as run"):
        assert words in found.text
        assert words not in Page(write("one.png")).text
    assert not Page(write("one.png")).all("rect")


def test_every_layer_has_a_small_photograph_with_exactly_the_skipped_patches_covered(
    write, make_looked
):
    found = Page(write("one.png", "two.png"))
    photographs = [a["id"] for a in found.all("image")]
    assert len(set(photographs)) == 2
    for name in photographs:
        assert len(found.all("use", href=f"#{name}")) == 5
    covers = iter(found.all("path"))
    for seed in range(2):
        live = make_looked(seed=seed).live[:, 1:].reshape(5, 4, 4)
        for computed in live:
            covered = np.zeros((4, 4), bool)
            for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", next(covers)["d"]):
                covered[int(y), int(x) : int(x) + int(length)] = True
            np.testing.assert_array_equal(covered, ~computed)


def test_the_legend_has_a_black_entry_where_patches_went_through_no_layer(write):
    depth = np.array([5] * 9 + [0] * 8)
    legend = re.search(r'<ol class="legend".*?</ol>', write("one.png", depth=depth)).group(0)
    assert 'background:#000000;color:#ffffff">0</li>' in legend


def test_of_several_exits_cards_say_which_it_was_and_show_a_map_for_each_that_ran(write):
    exits = {
        "exit": 0,
        "exit_answers": np.array([0, 1]),
        "exit_gmacs": np.array([1.0, 2.0]),
        "exit_maps": (np.full((2, 2), 1), np.zeros((4, 4), int)),
        "exit_layers": (2, 3),
    }
    found = Page(write("one.png", **exits))
    assert [a["data-exit"] for a in found.all("article")] == ["1"]
    assert [a["value"] for a in found.all("option")][-3:] == ["", "1", "2"]
    maps = [a for a in found.all("img") if a["alt"].startswith("Depth map of one.png, exit")]
    assert [a["alt"] for a in maps] == ["Depth map of one.png, exit 1: 1.0 of 2 layers"]
    assert "exit 2: not reached" in found.text
    assert len(found.all("ol", class_="legend")) == 2
    plain = Page(write("one.png"))
    assert not plain.all("select", id="stops")
    assert len(plain.all("ol", class_="legend")) == 1


def test_a_report_is_known_from_other_folders(write, tmp_path):
    assert not is_report(tmp_path)
    (tmp_path / "index.html").write_text("<html>my own page</html>")
    assert not is_report(tmp_path)
    (tmp_path / "index.html").write_text(write("ant"), encoding="utf-8", errors="replace")
    assert is_report(tmp_path)
