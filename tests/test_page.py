"""A page in a real browser, opened from disk: it plays, turns, hands out files, and asks nothing of a network."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mclip.pipeline.files.assets import ASSETS, HOUSE
from mclip.pipeline.geometry.body import load_body
from mclip.training.portable import model_page
from mclip.training.show import page as pages
from mclip.training.show.export import write
from mclip.training.show.motion import Motion, read
from mclip.training.show.writers import DATA, Y_UP

MOTIONS = ASSETS / "motions/EMBEDDED"
VIEWER = HOUSE / "workflows/viewer"
Browser = Any  # of selenium, which may be missing


@pytest.fixture(scope="module")
def kick() -> Motion:
    return read(MOTIONS / "kick/kick_poses.npz", fps=30.0)


@pytest.fixture(scope="module")
def file(kick: Motion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a kick alone, a kick beside another, and six more, so that some are out of sight."""
    cartwheel = read(MOTIONS / "cartwheel/cartwheel_poses.npz", fps=30.0)
    pair = dict(zip(("kick-source", "kick-made"), pages.side_by_side(kick, kick), strict=True))
    cards = [pages.Card("a kick", {"kick": kick}, facts=[("nearest clips", "kick 1.00")]), pages.Card("two", pair)]
    more = [pages.Card(f"cartwheel {number}", {f"cartwheel-{number}": cartwheel}) for number in range(6)]
    path = tmp_path_factory.mktemp("page") / "page.html"
    sections = [pages.Section("Some", cards), pages.Section("More", more)]
    path.write_text(pages.Page("A <b>page</b>", "", sections).html(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(chromium: Callable[..., Browser], file: Path) -> Browser:
    """The page, opened as a person would."""
    opened = chromium()
    opened.get(file.as_uri())
    wait_for(lambda: len(drawn(opened)) >= 2)
    return opened


@pytest.fixture
def still(browser: Browser) -> Browser:
    """The page as it begins, standing still at its first frame."""
    browser.execute_script("viewer.page.dialog.close(); scrollTo(0, 0); viewer.page.play(false); viewer.page.seek(0)")
    settle(browser)
    return browser


def wait_for(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `true` says once it says something; an assertion error where it never does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {true}")


def settle(browser: Browser) -> None:
    """Let the page draw."""
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def drawn(browser: Browser) -> list[str]:
    """Titles of the cards that were drawn."""
    return browser.execute_script("return [...document.querySelectorAll('.card .drawn canvas')].map(c => c.ariaLabel)")


def picture(browser: Browser, selector: str = ".card canvas") -> str:
    """Hash of what a canvas shows."""
    url = browser.execute_script(f"return document.querySelector('{selector}').toDataURL()")
    return hashlib.sha256(url.encode()).hexdigest()


def press(browser: Browser, key: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(key).perform()
    settle(browser)


def seconds(browser: Browser) -> float:
    """The time that the page tells."""
    return float(browser.find_element("id", "time").text.split()[0])


def test_it_plays_by_itself_and_space_stops_it(browser: Browser) -> None:
    before = picture(browser)
    wait_for(lambda: picture(browser) != before)
    press(browser, " ")
    stopped = picture(browser)
    time.sleep(0.2)
    assert picture(browser) == stopped
    press(browser, " ")
    wait_for(lambda: picture(browser) != stopped)


def test_arrows_go_one_frame_on_and_back(still: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    first = picture(still)
    press(still, Keys.ARROW_RIGHT)
    press(still, Keys.ARROW_RIGHT)
    assert seconds(still) == pytest.approx(2 / 30, abs=0.006)
    assert picture(still) != first
    press(still, Keys.ARROW_LEFT)
    press(still, Keys.ARROW_LEFT)
    assert (seconds(still), picture(still)) == (0, first)


def test_the_slider_is_dragged_through_time(still: Browser) -> None:
    from selenium.webdriver import ActionChains

    first, slider = picture(still), still.find_element("id", "scrub")
    half = slider.size["width"] // 2
    ActionChains(still).move_to_element_with_offset(slider, 8 - half, 0).click_and_hold().move_by_offset(
        half, 0
    ).perform()
    ActionChains(still).release().perform()
    settle(still)
    length = still.execute_script("return viewer.page.length")
    assert seconds(still) == pytest.approx(length / 2, rel=0.1)
    assert picture(still) != first


def test_a_drag_turns_the_body_and_opens_nothing(still: Browser) -> None:
    from selenium.webdriver import ActionChains

    first, canvas = picture(still), still.find_element("css selector", ".card canvas")
    ActionChains(still).move_to_element(canvas).click_and_hold().move_by_offset(60, 0).release().perform()
    settle(still)
    assert picture(still) != first
    assert not still.execute_script("return viewer.page.dialog.open")


def test_a_click_shows_it_large_and_escape_closes(still: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    still.find_elements("css selector", ".card canvas")[1].click()
    wait_for(lambda: still.execute_script("return viewer.page.large?.motion?.bodies.length") == 2)
    settle(still)
    large = picture(still, "#stage canvas")
    assert still.find_element("css selector", "#words .title").text == "two"
    press(still, Keys.ARROW_RIGHT)  # the bar went with it
    assert picture(still, "#stage canvas") != large
    press(still, "p")
    wait_for(lambda: still.find_element("css selector", "#words .title").text == "a kick")
    press(still, Keys.ESCAPE)
    assert not still.execute_script("return viewer.page.dialog.open")
    assert still.execute_script("return viewer.page.bar.parentElement === document.body")


def test_digits_open_a_motion_and_brackets_change_the_speed(still: Browser) -> None:
    press(still, "3")
    wait_for(lambda: still.find_element("css selector", "#words .title").text == "cartwheel 0")
    press(still, "[")
    assert still.execute_script("return [viewer.page.speed, document.querySelector('#speed').value]") == [0.5, "0.5"]
    press(still, "]")
    assert still.execute_script("return viewer.page.speed") == 1


def test_light_becomes_dark_and_light_again(still: Browser) -> None:
    def backs() -> list[str]:
        script = "return ['body', '.card'].map(e => getComputedStyle(document.querySelector(e)).backgroundColor)"
        return still.execute_script(script)

    light, first = backs(), picture(still)
    still.find_element("id", "lights").click()
    settle(still)
    assert all(sum(map(int, re.findall(r"\d+", colour)[:3])) < 120 for colour in backs())
    assert picture(still) != first
    press(still, "d")
    assert (backs(), picture(still)) == (light, first)


def test_only_what_is_in_sight_is_loaded_and_one_context_draws_all(browser: Browser) -> None:
    count = """
        const get = HTMLCanvasElement.prototype.getContext;
        window.contexts = {};
        HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
          (window.contexts[kind] ??= new Set()).add(this);
          return get.call(this, kind, ...more);
        };
    """
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": count})
    browser.set_window_size(500, 500)
    browser.refresh()
    wait_for(lambda: len(drawn(browser)) >= 1)
    assert "cartwheel 5, moving" not in drawn(browser)
    browser.execute_script("scrollTo(0, document.body.scrollHeight)")
    wait_for(lambda: "cartwheel 5, moving" in drawn(browser))
    sizes = browser.execute_script("return [window.contexts['webgl2'].size, window.contexts['2d'].size]")
    assert (sizes[0], sizes[1] > 1) == (1, True)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")  # as on a phone
    browser.set_window_size(1280, 900)


def test_three_js_poses_the_glb_as_the_body_is_posed(still: Browser, kick: Motion) -> None:
    frame = 11
    found = still.execute_async_script(
        """
        const [seconds, done] = arguments;
        viewer.page.load(viewer.page.cards[0]).then((motion) => {
          motion.pose(seconds);
          motion.group.position.set(0, 0, 0);
          motion.group.updateMatrixWorld(true);
          const places = {};
          motion.group.traverse((part) => {
            if (part.isBone) places[part.name] = part.matrixWorld.elements.slice(12, 15);
          });
          done(places);
        });
        """,
        frame / 30,
    )
    from mclip.pipeline.geometry.skeleton import JOINTS

    at = slice(frame, frame + 1)
    joints = load_body("low").pose_joints(kick.rotmat_TJ33[at], trans_B3=kick.trans_T3[at])[0].double() @ Y_UP.T
    assert sorted(found) == sorted(JOINTS)
    assert torch.allclose(torch.tensor([found[name] for name in JOINTS]).double(), joints, atol=1e-4)


def test_a_link_saves_the_very_file_that_export_writes(still: Browser, kick: Motion, tmp_path: Path) -> None:
    still.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "got")})
    for link in still.find_elements("css selector", ".card:first-child .files a")[:3]:
        link.click()
        name = link.get_attribute("download")
        saved = tmp_path / "got" / name
        wait_for(saved.exists)
        write(tmp_path / name, kick)
        assert saved.read_bytes() == (tmp_path / name).read_bytes()
    assert sorted(path.suffix for path in (tmp_path / "got").iterdir()) == [".bvh", ".glb", ".npz"]


def test_no_request_leaves_the_machine_and_the_console_is_clean(browser: Browser) -> None:
    """Over all that the tests above did."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith("file:") for url in asked)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


NAMES = ("A1 - Stand", "a'b\"c", "x]\\'\"#.:", "läuft 跳舞 💃", "n" * 200)


def test_any_name_is_only_a_name_and_its_motion_plays(
    chromium: Callable[..., Browser], kick: Motion, tmp_path: Path, hostile: tuple[str, ...]
) -> None:
    names = [*NAMES, *hostile]
    cards = [pages.Card(name, {name: kick}, note=name, facts=[(name, name)]) for name in names]
    page = pages.Page(hostile[1], hostile[0], [pages.Section(hostile[1], cards, lead=hostile[0])])
    (tmp_path / "page with spaces.html").write_text(page.html(), encoding="utf-8")
    opened = chromium()
    opened.get((tmp_path / "page with spaces.html").as_uri())
    opened.execute_script("for (const card of viewer.page.cards) viewer.page.load(card)")
    wait_for(lambda: opened.execute_script("return viewer.page.cards.every(({ view }) => view?.motion)"))
    titles = opened.execute_script("return [...document.querySelectorAll('.title')].map((title) => title.textContent)")
    assert titles == names
    assert opened.execute_script("return [...document.querySelectorAll('a')].map((link) => link.download)")[::3] == [
        f"{name}.npz" for name in names
    ]
    assert opened.execute_script("return window.__hit ?? null") is None
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_browser_without_webgl_shows_still_pictures(chromium: Callable[..., Browser], file: Path) -> None:
    plain = chromium("--disable-3d-apis")
    plain.get(file.as_uri())
    wait_for(lambda: plain.find_element("id", "no-webgl").is_displayed())
    still = plain.find_element("css selector", ".card .still")
    assert still.is_displayed()
    assert int(still.get_property("naturalWidth")) > 100


def test_a_title_is_text_and_never_markup(file: Path) -> None:
    page = file.read_text(encoding="utf-8")
    assert "<title>mclip: A &lt;b&gt;page&lt;/b&gt;</title>" in page
    assert "<b>page" not in page


def test_every_motion_lies_in_the_page_in_every_format(file: Path, kick: Motion, tmp_path: Path) -> None:
    page = file.read_text(encoding="utf-8")
    found = dict(re.findall(r'<script type="application/gzip" data-file="([^"]+)">([^<]+)</script>', page))
    assert len(found) == 9 * len(DATA)
    assert sorted(re.findall(r'data-of="([^"]+)"', page)) == sorted(found)
    write(tmp_path / "kick.bvh", kick)
    key = re.findall(r'data-of="([^"]+)" download="kick.bvh"', page)[0]
    content = found[key]
    assert gzip.decompress(base64.b64decode(content)) == (tmp_path / "kick.bvh").read_bytes()


def test_the_camera_glides_along_and_sees_the_body_from_its_front(kick: Motion) -> None:
    away = Motion(kick.rotmat_TJ33, kick.trans_T3 + torch.tensor([7.0, -3.0, 0.0]), kick.fps)
    path_T3, start_3 = pages.glide([away])
    pelvis_T3 = away.trans_T3 + load_body("low").joints_J3[0]
    assert float((path_T3 - pelvis_T3).norm(dim=-1).max()) < 0.5
    front, level = away.rotmat_TJ33[:, 0, :2, 2].double().mean(0), start_3[:2].double()
    assert float(torch.cosine_similarity(front, level, dim=0)) > 0.95
    assert start_3[2] > 0  # from a little above


def test_a_source_stands_left_of_what_was_made_of_it(kick: Motion) -> None:
    source, made = pages.side_by_side(kick, kick)
    _, start_3 = pages.glide([source, made])
    to_the_right = torch.linalg.cross(torch.tensor([0.0, 0, 1]), start_3.float())
    gap = made.trans_T3 - source.trans_T3
    assert torch.allclose(gap.norm(dim=-1), torch.full((len(gap),), pages.BESIDE).to(gap), atol=1e-5)
    assert float(torch.cosine_similarity(gap[0].float(), to_the_right, dim=0)) > 0.95


@pytest.mark.parametrize(("script", "made"), [("build", pages.SCRIPT), ("build-model", model_page.SCRIPT)])
def test_the_script_is_what_its_sources_make(tmp_path: Path, script: str, made: Path) -> None:
    if not shutil.which("npx") or not (VIEWER / "node_modules/esbuild").exists():
        pytest.skip("esbuild is not installed: npm ci --prefix workflows/viewer")
    build = json.loads((VIEWER / "package.json").read_text())["scripts"][script]
    words = [word for word in build.split() if not word.startswith("--outfile")]
    subprocess.run(
        ["npx", "--no-install", *words, f"--outfile={tmp_path / 'made.js'}"],
        cwd=VIEWER,
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "made.js").read_bytes() == made.read_bytes()
    assert "</script" not in made.read_text(encoding="utf-8")  # it would end where it lies


def test_the_runtime_is_npms_to_the_last_bit() -> None:
    runtime = VIEWER / "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"
    if not runtime.exists():
        pytest.skip("onnxruntime-web is not installed: npm ci --prefix workflows/viewer")
    assert gzip.decompress(model_page.RUNTIME.read_bytes()) == runtime.read_bytes()


def test_files_of_one_motion_pack_to_the_same_bytes_again(kick: Motion) -> None:
    first, second = (pages.Page("", "", [pages.Section("", [pages.Card("a", {"a": kick})])]) for _ in range(2))
    for made in (first, second):
        made.html()
    assert first.files == second.files
    assert len(first.files) == len(DATA)
