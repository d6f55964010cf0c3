"""What `mclip render` draws, as its options say."""

from dataclasses import dataclass

from mclip.pipeline.draw.looks import check_size, rgb
from mclip.pipeline.machine.options import check_settings, setting


@dataclass(frozen=True)
class RenderOptions:
    """What the pictures show."""

    frames: int = setting(1, "Pictures per window; one is the middle frame.", least=1)
    pick: str = setting(
        "even",
        "Which frames: evenly spaced, a random one from each of --frames equal parts, or every frame.",
        ("even", "random", "all"),
    )
    seed: int = setting(0, "Seed for --pick random.")
    camera: str = setting(
        "front", "In front of the body in every picture, or standing still during a window.", ("front", "fixed")
    )
    views: int = setting(1, "Cameras around the body; the first one is in front.", least=1)
    size: int = setting(224, "Width and height of a picture in pixels.")
    antialias: int = setting(1, "Draw this many times as large, then average.")
    body: str = setting("default", "default, low, an .npz of `mclip body import`, or a folder with one per gender.")
    betas: str = setting("zero", "One body shape for all, or the shape of each sequence.", ("zero", "sequence"))
    colour: str = setting("clay", "Colour of the body: a CSS name or #rrggbb.")
    background: str = setting("white", "Colour of the background: a CSS name or #rrggbb.")
    ground: bool = setting(False, "Draw a chequered floor under the lowest point of the window.")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.pick == "all" and self.frames != 1:
            raise ValueError(f"--frames is {self.frames} with --pick all, which draws every frame: leave one out")
        if self.pick != "random" and self.seed != 0:
            raise ValueError(f"--seed is {self.seed} with --pick {self.pick}: expected --pick random")
        check_size(self.size, self.antialias)
        rgb(self.colour)
        rgb(self.background)


@dataclass(frozen=True)
class VideoOptions:
    """How videos and GIFs of motions look that belong to no store; each is a field of RenderOptions, too."""

    size: int = setting(512, "Width and height of an mp4 or gif, in pixels.")
    # 13 ms a frame on one core, and 70 ms with 2, which at this size hardly shows.
    antialias: int = setting(1, "Draw an mp4 or gif this many times as large, then average.")
    ground: bool = setting(True, "Draw a chequered floor in an mp4 or gif.")
    body: str = setting("default", "Body of the pictures: default, low, or an .npz of `mclip body import`.")
