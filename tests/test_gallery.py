"""The page opens from disk: everything inside it, videos that decode, text that is escaped, made once."""

import base64
import io
import re
from pathlib import Path

import av
import pytest

from mclip.pipeline.encoder import Encoder
from mclip.pipeline.store import Store
from mclip.training import gallery, generate
from mclip.training.run import Run


@pytest.fixture(scope="module")
def page(run: Run, store: Store, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with two reconstructions and one generated motion whose prompt is hostile."""
    folder = tmp_path_factory.mktemp("gallery")
    title = "<script>alert(1)</script> & kick"
    prompts = generate.prompts_of([title], generate.vectors_of(run, [title], encoder))
    generate.write_motions(run, "generate", prompts, folder / "made", frames=6, formats=("npz", "mp4"))
    file = folder / "page.html"
    args = {"folders": [folder / "made"], "split": None, "most": 2}
    assert "MB)" in gallery.write_gallery(run, store, file, **args)
    assert "nothing to do" in gallery.write_gallery(run, store, file, **args)
    return file.read_text(encoding="utf-8")


def test_nothing_is_asked_of_any_network(page: str) -> None:
    addresses = re.findall(r"""(?:src|href)=["']?([^"'>]{0,40})""", page)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\((?!#)|fetch\(", page)


def test_every_video_decodes(page: str) -> None:
    videos = re.findall(r'<video src="data:video/mp4;base64,([^"]+)"', page)
    assert len(videos) == 3
    for video in videos:
        with av.open(io.BytesIO(base64.b64decode(video))) as opened:
            assert sum(1 for _ in opened.decode(video=0)) >= 6


def test_source_and_reconstruction_stand_side_by_side(page: str) -> None:
    wide = re.findall(r'class="media"><img[^>]*><video src="data:video/mp4;base64,([^"]+)"', page)
    assert len(wide) == 2
    with av.open(io.BytesIO(base64.b64decode(wide[0]))) as opened:
        stream = opened.streams.video[0]
        assert stream.width == 2 * stream.height


def test_a_prompt_is_text_and_never_markup(page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; kick" in page
    assert "<script>alert" not in page


def test_the_curves_show_every_loss(page: str) -> None:
    curves = page.split('<div class="curves">')[1].split("</div>")[0]
    assert curves.count("<svg") == 1
    for term in ("rot6d", "vertices", "velocity", "text", "image"):
        assert f"<!-- {term} -->" in curves


def test_a_folder_that_generate_did_not_write_is_refused(run: Run, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no motions.json in it; expected what `mclip generate"):
        gallery.write_gallery(run, store, tmp_path / "p.html", folders=[tmp_path], split=None, most=1)
    assert not (tmp_path / "p.html").exists()
