"""What is done to a motion between the decoder and its files, as the options say."""

from dataclasses import dataclass

from mclip.pipeline.machine.options import setting

SHORTEST, LONGEST = 2, 5000  # frames of a motion that can be asked for


@dataclass(frozen=True)
class Shaping:
    """What becomes of a motion before it is written, in this order."""

    foot_lock: bool = setting(False, "Hold feet that stand where they stand, by bending the legs.")
    loop: bool = setting(False, "End each motion in the pose that it begins in, so that it can be played on and on.")
    in_place: bool = setting(False, "Leave out the way over the floor; the height stays.")

    @property
    def asked(self) -> list[str]:
        """The names of what is asked for."""
        return [name for name, wanted in vars(self).items() if wanted]
