"""How `mclip prepare` makes sequences and windows of motion, as its options say."""

from dataclasses import asdict, dataclass
from typing import Any

from mclip.pipeline.forms.asked import SET_NAMES, UPS, Asked
from mclip.pipeline.machine.options import check_settings, setting


@dataclass(frozen=True)
class PrepareOptions:
    """How motion becomes sequences and windows; the numbers are the paper's."""

    fps: float = setting(30.0, "Frames per second of the store.", least=1, most=240)
    resample: str = setting(
        "slerp",
        "slerp: interpolate to exactly --fps. stride: take every n-th frame, as the paper's release does.",
        ("slerp", "stride"),
    )
    window: int = setting(100, "Frames in a window.", least=1)
    crop: int = setting(60, "Frames in a training crop, which lies within a window.", least=1)
    short: str = setting(
        "pad", "Whether sequences shorter than a window, and tails of at least a crop, are kept.", ("pad", "drop")
    )
    mirror: bool = setting(False, "Add every sequence mirrored, with left and right swapped in its texts.")
    face_front: bool = setting(False, "Turn every sequence so that its first frame faces -y.")
    array_fps: float | None = setting(
        None, "Frames per second of plain .npy arrays, which do not say it themselves.", above=0
    )
    joints: str = setting(
        "", "Whose joints places are of, where two sets have as many: coco17, h36m17, ...", ("", *SET_NAMES)
    )
    rot6d: str = setting(
        "", "What 6D rotations are, where knees that hardly bend do not tell.", ("", "rows", "columns")
    )
    map: str = setting("", 'A .toml of `left_hip = "THEIR NAME"` for joints that are not understood by their names.')
    up: str = setting("", "Which axis of the files is up, where a body that lies or hangs does not tell.", ("", *UPS))

    def __post_init__(self) -> None:
        check_settings(self)
        if self.crop > self.window:
            raise ValueError(f"--crop is {self.crop}: expected 1 to --window, which is {self.window}")

    @property
    def asked(self) -> Asked:
        """What is said of files that do not say it themselves."""
        return Asked(fps=self.array_fps, joints=self.joints, rot6d=self.rot6d, joint_map=self.map, up=self.up)

    @property
    def kept(self) -> dict[str, Any]:
        """What a store keeps of them; what was not asked for is left out, as stores do that did not know of it."""
        return {name: value for name, value in asdict(self).items() if value or name not in ("rot6d", "joints", "up")}

    @property
    def planning(self) -> dict[str, Any]:
        """The options that the lengths of sequences depend on, as `extend_plan` takes them."""
        return {"fps": self.fps, "how": self.resample, "mirror": self.mirror, "asked": self.asked}
