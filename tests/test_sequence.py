"""Sequences, long motions and loops: of real clips, and of a decoder."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.joining import Track, on_the_spot
from mclip.pipeline.geometry.rotations import geodesic
from mclip.training.latent.prompts import timed
from mclip.training.model.run import Run
from mclip.training.show import sequence
from mclip.training.show.motion import Motion, read
from mclip.training.show.sequence import Chain, chained, looped

FPS = 30.0
JOINTS = load_body("low").joints_J3
NAMES = ("walk", "run", "kick", "jump", "crawl", "punch", "dance_b", "getup_facedown", "spin")


def jerk(track: Track) -> torch.Tensor:
    """Mean over the joints of the third derivative's length, m/s^3, by frame."""
    return track.points(JOINTS).diff(n=3, dim=0).norm(dim=-1).mean(-1) * FPS**3


@pytest.mark.parametrize(("one", "other"), [*itertools.permutations(NAMES, 2)])
def test_a_seam_of_two_real_clips_is_less_than_twice_as_jerky_as_they_are(clip: Any, one: str, other: str) -> None:
    first, second = clip(one), clip(other)
    chain = Chain(FPS, JOINTS, first)
    chain.follow(second, len(first.trans_T3))
    (seam,) = chain.seams
    around = jerk(chain.whole(chain.length))[max(0, seam.start - 3) : seam.stop + 1]
    own = (jerk(first).mean() + jerk(second).mean()) / 2
    assert float(around.mean() / own) < 2


def test_a_long_walk_is_joined_at_equal_phases_and_does_not_slow_down(clip: Any) -> None:
    """A gait cycle of the clip is 38 frames long."""
    walk = clip("walk")
    chain = Chain(FPS, JOINTS, walk)
    for _ in range(4):
        chain.go_on(walk)
    assert max(seam.distance for seam in chain.seams) < 0.03
    whole = chain.whole(chain.length)
    step = whole.trans_T3[:, :2].diff(dim=0).norm(dim=-1)
    assert float(step[-30:].mean() / step[:30].mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("frames", [2, 3, 8, 12])
def test_crops_shorter_than_two_seams_still_go_on(clip: Any, frames: int) -> None:
    crop = clip("walk").cut(0, frames)
    chain = Chain(FPS, JOINTS, crop)
    for _ in range(3):
        chain.follow(crop, chain.length)  # which may take the place of frames that were there
        before = chain.length
        chain.go_on(crop)
        assert chain.length > before
    assert chain.whole(chain.length).trans_T3.isfinite().all()


def test_parts_begin_near_their_time_and_the_whole_lasts_as_asked(run: Run) -> None:
    vectors = torch.randn(4, 384, generator=torch.Generator().manual_seed(3))
    motion, seams = chained(run, vectors, (45, 100, 15, 60))
    assert len(motion.trans_T3) == 220
    for due in (45, 145, 160):
        assert min(abs((seam.start + seam.stop) / 2 - due) for seam in seams) <= sequence.REACH * run.fps + 1
    assert all(motion.rotmat_TJ33.isfinite().flatten())


def test_a_part_alone_begins_as_the_decoder_makes_it(run: Run) -> None:
    vector = torch.randn(1, 384, generator=torch.Generator().manual_seed(3))
    crop, seams = chained(run, vector, (run.crop,))
    longer, more = chained(run, vector, (3 * run.crop,))
    assert (seams, len(longer.trans_T3)) == ([], 3 * run.crop)
    first = more[0].start
    assert torch.equal(longer.trans_T3[:first], crop.trans_T3[:first])


def test_hundreds_of_parts_are_joined_while_only_a_crop_stays_open(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    open_frames = set[int]()
    join = Chain.join

    def watched(chain: Chain, *how: object) -> None:
        join(chain, *how)  # type: ignore[arg-type]
        open_frames.add(len(chain.tail.trans_T3))

    monkeypatch.setattr(Chain, "join", watched)
    vectors = torch.randn(1, 384).expand(250, -1)
    motion, seams = chained(run, vectors, [15] * 250)
    assert (len(motion.trans_T3), len(seams) >= 249) == (3750, True)
    assert max(open_frames) <= run.crop


def test_the_loop_of_a_walk_is_its_gait_cycle(clip: Any) -> None:
    """A round is 38 frames long: 39 with the first frame once more."""
    walk = clip("walk")
    chain = Chain(FPS, JOINTS, walk)
    for _ in range(3):
        chain.go_on(walk)
    loop, seam = looped(Motion(*chain.whole(chain.length), FPS), 45)
    assert abs(len(loop.trans_T3) - 39) <= 1
    assert seam.distance < 0.05
    assert geodesic(loop.rotmat_TJ33[0], loop.rotmat_TJ33[-1]).max() < 0.02  # the pelvis's too: straightened
    steps = on_the_spot(Track(loop.rotmat_TJ33, loop.trans_T3)).points(JOINTS).diff(dim=0)
    assert (steps[-1] - steps[0]).norm(dim=-1).mean() < 0.01  # metres a frame, of 0.03


@pytest.mark.parametrize(
    ("words", "text", "seconds"),
    [
        ("a person walks @3", "a person walks", 3.0),
        ("jump @ 0.5", "jump", 0.5),
        ("meet me@home", "meet me@home", None),
        ("sits down", "sits down", None),
    ],
)
def test_a_part_says_how_long_it_lasts(words: str, text: str, seconds: float | None) -> None:
    assert timed(words) == (text, seconds)


@pytest.mark.parametrize("said", ["0", "-2", "nan", "inf", "10000", "0.1", "three"])
def test_lengths_that_are_none_are_refused_by_name_and_nothing_is_written(run: Run, tmp_path: Path, said: str) -> None:
    words = ["generate", str(run.folder), "walk @1", f"sit @{said}", "--sequence", "--out", str(tmp_path / "o")]
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 1
    assert f"'sit @{said}': " in told.output
    assert "expected" in told.output
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("parts", "told"),
    [(["walk @600"] * 7, "a sequence of 4,200 seconds; expected at most 3,600"), (["walk @600"], "18,000 frames")],
)
def test_what_is_too_long_for_its_files_is_refused_before_anything_is_decoded(
    run: Run, tmp_path: Path, parts: list[str], told: str
) -> None:
    words = ["generate", str(run.folder), *parts, "--sequence", "--format", "npz", "--format", "mp4"]
    found = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "o")])
    assert found.exit_code == 1
    assert told in found.output
    assert not (tmp_path / "o").exists()


def test_texts_become_one_motion_that_is_made_once(run: Run, tmp_path: Path) -> None:
    words = ["generate", str(run.folder), "walk @1", "kick", "--sequence", "--frames", "40", "--format", "npz"]
    words += ["--out", str(tmp_path / "o")]
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 0, told.output
    assert "walk, then kick: " in told.output
    assert "seams, the widest between poses" in told.output
    assert len(read(tmp_path / "o/00-walk-then-kick.npz").trans_T3) == 70
    assert "0 of 1 motions to do" in CliRunner().invoke(cli, words).output
    other = CliRunner().invoke(cli, [word.replace("@1", "@2") for word in words])
    assert "was made with" in other.output


def test_a_sequence_has_one_motion_a_seed(run: Run, tmp_path: Path) -> None:
    words = ["generate", str(run.folder), "walk @1", "kick @1", "--sequence", "--seed", "1", "--seed", "2"]
    told = CliRunner().invoke(cli, [*words, "--format", "npz", "--out", str(tmp_path / "o")])
    assert told.exit_code == 0, told.output
    made = [read(path) for path in sorted((tmp_path / "o").glob("*.npz"))]
    assert [len(each.trans_T3) for each in made] == [60, 60]
    assert not torch.equal(made[0].rotmat_TJ33, made[1].rotmat_TJ33)


def test_loops_on_the_spot_end_as_they_begin(run: Run, tmp_path: Path) -> None:
    words = ["generate", str(run.folder), "walk", "--loop", "--in-place", "--format", "npz"]
    told = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "o")])
    assert told.exit_code == 0, told.output
    made = read(tmp_path / "o/00-walk.npz")
    assert geodesic(made.rotmat_TJ33[0, 1:], made.rotmat_TJ33[-1, 1:]).max() < 1e-3
    assert made.trans_T3[:, :2].std(dim=0).max() < 1e-6
    assert float(made.trans_T3[0, 2] - made.trans_T3[-1, 2]) == pytest.approx(0, abs=1e-5)
