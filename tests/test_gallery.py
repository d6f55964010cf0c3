"""The page of a run: everything in it, what lies near each motion, text that is escaped, made once."""

import html
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.embed.vectors import vectors_by_text
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.prepare.sources import clip_name
from mclip.pipeline.store.store import Store
from mclip.training.evaluate.evaluate import evaluate_once
from mclip.training.evaluate.report import number, tables
from mclip.training.latent.prompts import prompts_of
from mclip.training.latent.search import index_of
from mclip.training.latent.space import vectors_of
from mclip.training.model.run import Run
from mclip.training.show import folder as generate
from mclip.training.show import gallery

TITLE = "<script>alert(1)</script> & kick"


@pytest.fixture(scope="module")
def made(run: Run, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one generated motion whose prompt is hostile."""
    folder = tmp_path_factory.mktemp("gallery") / "made"
    prompts = prompts_of([TITLE], vectors_of(run, [TITLE], encoder))
    generate.write_motions(run, "generate", prompts, folder, frames=6, formats=("npz",))
    return folder


@pytest.fixture(scope="module")
def page(run: Run, store: Store, made: Path) -> str:
    """A page with two reconstructions and the generated motion."""
    file = made.parent / "page.html"
    told = gallery.write_gallery(run, store, file, folders=[made], split=None, most=2)
    assert re.fullmatch(rf"gallery: 3 motions in {file} \(\d\.\d MB\)", told)
    assert "nothing to do" in gallery.write_gallery(run, store, file, folders=[made], split=None, most=2)
    return file.read_text(encoding="utf-8")


def test_nothing_is_asked_of_any_network(page: str) -> None:
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    addresses = re.findall(r"""(?:src|href)=["']?([^"'>]{0,40})""", markup)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\((?!#)", markup)


def test_a_card_holds_source_and_reconstruction_and_the_picture_that_clip_saw(page: str) -> None:
    name = dict(re.findall(r'data-of="([^"]+)" download="([^"]+)"', page)).__getitem__
    pairs = [names for names in re.findall(r'data-play="([^"]+)"', page) if " " in names]
    assert len(pairs) == 2
    for source, made in map(str.split, pairs):
        assert f'data-of="{source}" download="{name(source)}"' in page
        assert name(source).endswith("-source.glb")
        assert name(made).endswith("-reconstruction.glb")
    assert page.count('class="seen"') == 2
    assert len(re.findall(r"\d+\.\d mm MPJPE, \d+\.\d degrees", page)) == 2


def test_a_prompt_is_text_and_never_markup(page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; kick" in page
    assert "<script>alert" not in page


def test_words_of_a_store_a_run_and_its_prompts_run_nowhere_in_a_browser(
    chromium: Callable[..., Any],
    hostile: tuple[str, ...],
    hostile_run: Run,
    hostile_store: Store,
    encoder: Encoder,
    tmp_path: Path,
) -> None:
    words = [f"{word} walk" for word in hostile]
    prompts = prompts_of(words, vectors_of(hostile_run, words, encoder))
    generate.write_motions(hostile_run, "generate", prompts, tmp_path / "made", frames=4, formats=("npz", "html"))
    gallery.write_gallery(
        hostile_run, hostile_store, tmp_path / "gallery.html", folders=[tmp_path / "made"], split=None, most=9
    )
    opened = chromium()
    opened.get((tmp_path / "gallery.html").as_uri())
    body = opened.find_element("tag name", "body")
    said = body.get_attribute("textContent")
    assert [word for word in (*words, *hostile, hostile_run.folder.name) if word not in said] == []
    titles = opened.execute_script("return [...document.querySelectorAll('.title')].map((title) => title.textContent)")
    assert [word for word in words if word not in titles] == []
    opened.execute_script("for (const card of viewer.page.cards) viewer.page.load(card)")
    opened.execute_script("for (const link of document.links) link.focus()")
    assert opened.execute_script("return window.__hit ?? null") is None
    exported = sorted((tmp_path / "made").glob("*.html"))
    assert len(exported) == len(hostile)
    for page in exported:
        opened.get(page.as_uri())
        assert opened.execute_script("return viewer.page.cards.length") == 1
        assert opened.execute_script("return window.__hit ?? null") is None
    opened.execute_script(
        "const img = document.createElement('img'); img.onerror = () => window.__hit = 1; img.src = 'x'"
    )
    time.sleep(0.5)
    assert opened.execute_script("return window.__hit") == 1  # the control: here a script would have run


def test_the_curves_show_every_loss(page: str) -> None:
    curves = page.split('<div class="curves">')[1].split("</div>")[0]
    assert curves.count("<svg") == 1
    for term in ("rot6d", "vertices", "velocity", "text", "image"):
        assert re.search(rf"<text[^>]*>{term}</text>", curves)


def test_a_card_names_the_labels_of_the_frames_that_it_plays(run: Run, long_store: Store) -> None:
    """The middles of LONG's windows: shift 0 of the first one would say `stand still`, too."""
    around = gallery.Neighbours.of(run, long_store)
    cards = gallery.reconstruction_cards(run, long_store, around, split="train", most=9)
    notes = ["walk", "Kick [left]; walk", "Kick [left]", "walk", "hop", ""]
    assert [card.note for card in cards] == notes
    assert [len(next(iter(card.motions.values())).trans_T3) for card in cards] == [60, 60, 60, 60, 15, 60]


def test_the_page_ends_in_the_reports_tables(run: Run, store: Store, tmp_path: Path) -> None:
    copy = replace(run, folder=shutil.copytree(run.folder, tmp_path / "run"))
    figures, _ = evaluate_once(copy, store, split=None, queries=None, replace=False)
    gallery.write_gallery(copy, store, tmp_path / "page.html", folders=[], split=None, most=1)
    end = (tmp_path / "page.html").read_text(encoding="utf-8").split("<h2>Figures</h2>")[1].split("<dialog")[0]
    assert [html.unescape(title) for title in re.findall("<h3>(.*?)</h3>", end)] == [t.title for t in tables(figures)]
    assert not re.search(r"\d\.\d{6}|made.of|ci95", end)
    assert f">{number(figures['reconstruction']['mpjpe_mm'])}<" in end


def test_the_neighbours_of_a_labels_own_vector_begin_with_that_label(run: Run, store: Store) -> None:
    vectors = vectors_by_text(store, run.config["encoder"]["name"])
    around = gallery.Neighbours.of(run, store)
    wanted = around.labels[2]
    (best, cosine), (_, second), _ = around.nearest_labels(torch.from_numpy(vectors[wanted]))
    assert (best, round(cosine, 4)) == (wanted, 1)
    assert second < 1


def test_the_neighbours_of_a_clips_own_vector_begin_with_that_clip(run: Run, store: Store) -> None:
    index = index_of(run, store)
    name = clip_name(store.strings("sequences/name")[1])
    facts = dict(gallery.Neighbours.of(run, store).facts(index.unit_WC[index.first[1]]))
    assert facts["nearest clips"].startswith(f"{name} 1.00, ")
    assert facts["nearest clips"].count(",") == 2  # three clips are in the store


def test_a_folder_that_generate_did_not_write_is_refused(run: Run, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no motions.json in it; expected what `mclip generate"):
        gallery.write_gallery(run, store, tmp_path / "p.html", folders=[tmp_path], split=None, most=1)
    assert not (tmp_path / "p.html").exists()


def test_a_folder_that_is_not_there_is_refused_even_where_the_page_is(run: Run, store: Store, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    gallery.write_gallery(run, store, page, folders=[], split=None, most=1)
    with pytest.raises(ValueError, match="nowhere: no motions.json in it"):
        gallery.write_gallery(run, store, page, folders=[tmp_path / "nowhere"], split=None, most=1)


def test_a_motion_that_cannot_be_read_is_named_and_no_page_is_written(
    run: Run, store: Store, made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made, tmp_path / "made")
    (npz,) = (tmp_path / "made").glob("*.npz")
    npz.write_bytes(npz.read_bytes()[:500])
    with pytest.raises(MotionError, match=re.escape(str(npz))):
        gallery.write_gallery(run, store, tmp_path / "p.html", folders=[tmp_path / "made"], split=None, most=1)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_without_data_files_is_told_how_to_make_them(
    run: Run, store: Store, made: Path, tmp_path: Path
) -> None:
    manifest = json.loads((made / generate.MANIFEST).read_text())
    manifest["motions"][0]["files"] = ["a.mp4"]
    (tmp_path / generate.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"has no \.npz; generate it with --format npz"):
        gallery.write_gallery(run, store, tmp_path / "p.html", folders=[tmp_path], split=None, most=1)
