"""The page that generates, in a real browser from disk: its motions are mclip's, and nothing leaves it."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mclip.pipeline.embed.encoder import Encoder
from mclip.training import Motion, MotionClip
from mclip.training.model.run import Run, RunError
from mclip.training.portable import model_page as pages
from mclip.training.portable.model_page import model_page, require_text_tower
from mclip.training.show.writers import write_glb
from mclip.workflows.check_quickstart import is_model_page

Browser = Any  # of selenium, which may be missing
TEXTS = ("a person walks", "a karate kick", "get up, slowly!")
MOST = {"float32": 2.0, "int8": 10.0}  # mm that a joint may be from where mclip generate puts it


@pytest.fixture(scope="module")
def files(
    run: Run, encoder: Encoder, models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The page in two precisions."""
    folder = tmp_path_factory.mktemp("page")
    for precision in MOST:
        page = model_page(run, encoder, models, precision=precision, title="Mine & <b>yours</b>")
        (folder / f"{precision}.html").write_text(page.html(), encoding="utf-8")
    return {precision: folder / f"{precision}.html" for precision in MOST}


@pytest.fixture(scope="module")
def browser(chromium: Callable[..., Browser], files: dict[str, Path]) -> Browser:
    """The page in int8, opened as a person would."""
    opened = chromium()
    open_page(opened, files["int8"])
    return opened


def open_page(browser: Browser, file: Path) -> None:
    browser.get(file.as_uri())
    end = time.monotonic() + 120
    while not browser.execute_script("return viewer.model.ready"):
        assert time.monotonic() < end, told(browser)
        time.sleep(0.05)


def told(browser: Browser) -> str:
    return str(browser.execute_script("return document.getElementById('told').textContent"))


def ask(browser: Browser, kind: str, **fields: str) -> torch.Tensor | None:
    """Fill in the form and send it: the places of the joints that are shown, or None where it refuses."""
    found = browser.execute_async_script(
        """const [fields, done] = arguments, form = document.getElementById("ask");
        for (const [name, value] of Object.entries(fields)) form.elements[name].value = value;
        viewer.model.last = null;
        viewer.ask().then(() => done(viewer.model.last && Array.from(viewer.model.last.places)));""",
        {"kind": kind, **fields},
    )
    return None if found is None else torch.tensor(found).view(-1, 24, 3)


def apart(browser: Browser, motion: Motion, kind: str, **fields: str) -> float:
    """How far a joint is from that of a motion, at most, in mm."""
    places = ask(browser, kind, **fields)
    assert places is not None
    return float(1000 * (places - motion.joints()).norm(dim=-1).max())


@pytest.fixture(scope="module")
def model(run: Run) -> MotionClip:
    return MotionClip(run)


def test_a_page_of_the_same_model_is_not_made_again(
    run: Run, models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "traced_for_page", lambda *_: models)
    out, made = tmp_path / "model.html", []
    for precision, title in (("float16", "Mine"), ("float16", "Mine"), ("float16", "Yours"), ("int8", "Yours")):
        made.append(
            pages.write_model_page(run, out, precision=precision, title=title).startswith("page: nothing to do")
        )
    assert made == [False, True, False, False]
    assert is_model_page(out)
    trained = replace(run, state=run.state | {"z_length": 2.0})  # validated again
    assert "nothing to do" not in pages.write_model_page(trained, out, precision="int8", title="Yours")


def test_joints_of_int8_are_those_of_generate(browser: Browser, model: MotionClip) -> None:
    for text in TEXTS:
        assert apart(browser, model.generate(text), "text", text=text, seed="") < MOST["int8"], text


def test_edits_and_what_lies_between_are_those_of_the_commands(browser: Browser, model: MotionClip) -> None:
    edited = model.edit("walk", "walk", "kick", 0.5)
    assert apart(browser, edited, "edit", base="walk", **{"from": "walk"}, to="kick", scale="0.5") < MOST["int8"]
    start, end = model.encode_text(["walk", "kick"])
    between = model.decode(start + 0.25 * (end - start))
    assert isinstance(between, Motion)
    assert apart(browser, between, "between", start="walk", end="kick", share="0.25") < MOST["int8"]


def test_a_seed_is_the_same_motion_again_and_another_one_another(browser: Browser) -> None:
    none, one, again, other = (ask(browser, "text", text="walk", seed=seed) for seed in ("", "1", "1", "2"))
    assert none is not None
    assert one is not None
    assert again is not None
    assert other is not None
    assert torch.equal(one, again)
    assert min((one - none).abs().max(), (one - other).abs().max()) > 0.001  # metres


def saved(browser: Browser, kind: str) -> tuple[str, bytes]:
    """Name and content of a file that the page hands out."""
    name, text = browser.execute_script(
        """const links = [...document.querySelectorAll(".card a[data-of]")];
        const link = links.find(({ textContent }) => textContent.trim() === arguments[0]);
        const bytes = Array.from(new Uint8Array(viewer.held.get(link.dataset.of)));
        return [link.download, bytes.map((byte) => String.fromCharCode(byte)).join("")]""",
        kind,
    )
    return name, text.encode("latin-1")


def test_what_is_saved_is_what_is_shown(browser: Browser, tmp_path: Path) -> None:
    places = ask(browser, "text", text="a karate kick", seed="5")
    assert places is not None
    for kind, within in (("npz", 1e-6), ("bvh", 1e-5)):  # metres; a BVH has six decimals
        name, content = saved(browser, kind)
        assert name == f"a-karate-kick-seed-5.{kind}"
        (tmp_path / name).write_bytes(content)
        assert (Motion.load(tmp_path / name).joints() - places).abs().max() < within + 1e-5
    motion = Motion.load(tmp_path / "a-karate-kick-seed-5.npz")
    write_glb(tmp_path / "python.glb", motion)
    _, content = saved(browser, "glb")
    ours, theirs = (animation(each, len(places)) for each in (content, (tmp_path / "python.glb").read_bytes()))
    assert (ours[1] - theirs[1]).abs().max() < 1e-4  # metres
    same = (ours[0] * theirs[0]).sum(-1).abs()  # a quaternion and its negative are one rotation
    assert (1 - same).abs().max() < 1e-5
    assert (ours[0][:, 1:] * ours[0][:, :-1]).sum(-1).min() > 0  # but from frame to frame the sign stays


def animation(glb: bytes, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations (24, T, 4) and the root's path (T, 3) of a GLB: its last 25 pieces."""
    length = int.from_bytes(glb[12:16], "little")
    views = json.loads(glb[20 : 20 + length])["bufferViews"]
    found = torch.frombuffer(bytearray(glb[28 + length + views[-25]["byteOffset"] :]), dtype=torch.float32)
    return found[: 24 * frames * 4].view(24, frames, 4), found[24 * frames * 4 :].view(frames, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" ", "An empty text: write what the person does."),
        ("x" * 10_000_000, "A text of 10,000,000 characters, expected at most 2,000: say it shorter."),
    ],
    ids=["empty", "10 MB"],
)
def test_a_text_that_is_none_is_refused_in_words(browser: Browser, text: str, words: str) -> None:
    assert ask(browser, "text", text=text, seed="") is None
    assert told(browser) == words


def test_letters_that_the_encoder_does_not_read_are_named(browser: Browser) -> None:
    assert ask(browser, "text", text="человек идёт", seed="") is not None
    assert "letters such as ч say nothing to it: expect any motion" in told(browser)
    assert ask(browser, "text", text="¡une pirouette, été!", seed="") is not None
    assert told(browser).startswith("Made in ")


def test_no_request_leaves_the_page_and_none_could(browser: Browser) -> None:
    lines = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [line["params"]["request"]["url"] for line in lines if line["method"] == "Network.requestWillBeSent"]
    assert asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    tried = "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('sent'), (e) => done(e.message))"
    assert browser.execute_async_script(tried) == "Failed to fetch"
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors
    assert all("Content Security Policy" in error for error in errors)


def test_joints_of_float32_are_those_of_generate(browser: Browser, files: dict[str, Path], model: MotionClip) -> None:
    open_page(browser, files["float32"])
    for text in TEXTS:
        assert apart(browser, model.generate(text), "text", text=text, seed="") < MOST["float32"], text


def test_a_browser_without_simd_is_told(browser: Browser, files: dict[str, Path]) -> None:
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": "WebAssembly.validate = () => false"})
    browser.get(files["int8"].as_uri())
    assert told(browser).startswith("This browser's WebAssembly has no SIMD, which the model needs: open the page in")
    assert not browser.find_element("id", "make").is_enabled()


def test_a_run_that_no_page_can_hold_is_refused(run: Run) -> None:
    other = run.config | {"encoder": run.config["encoder"] | {"clip": "ViT-B-32", "pretrained": "openai"}}
    with pytest.raises(RunError, match=r"its encoder is ViT-B-32; a page holds the text tower of `--clip"):
        require_text_tower(replace(run, config=other))
    with pytest.raises(RunError, match=r"keeps no vectors of training motions, to which a page carries texts"):
        require_text_tower(replace(run, z_NC=None))
