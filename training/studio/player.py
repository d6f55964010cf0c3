"""A body on a browser's screen, in motion."""

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from mclip.pipeline.draw.looks import CLAY
from mclip.pipeline.geometry.body import Body
from mclip.pipeline.geometry.rotations import matrix_to_quaternion
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.training.show.motion import Motion
from mclip.training.show.page import glide


@dataclass(frozen=True)
class Track:
    """A motion as the page's bones take it, frame by frame."""

    motion: Motion
    path_T3: np.ndarray
    wxyz_TJ4: np.ndarray
    place_TJ3: np.ndarray

    @classmethod
    def of(cls, motion: Motion, body: Body) -> "Track":
        """A motion on a body's skeleton."""
        world_TJ33, place_TJ3 = forward_kinematics(
            motion.rotmat_TJ33.float(), body.joints_J3, root_B3=motion.trans_T3.float()
        )
        return cls(motion, glide([motion])[0].numpy(), matrix_to_quaternion(world_TJ33).numpy(), place_TJ3.numpy())

    @property
    def length(self) -> float:
        """Seconds from the first frame to the last."""
        return (len(self.place_TJ3) - 1) / self.motion.fps

    def at(self, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the world stands (3,), and every bone's turn (J, 4) and place (J, 3) in it."""
        frame = min(round(seconds * self.motion.fps), len(self.place_TJ3) - 1)
        return -self.path_T3[frame], self.wxyz_TJ4[frame], self.place_TJ3[frame]


class Player:
    """A body on a browser's screen, and how far it is in its motion."""

    def __init__(self, client: Any, body: Body) -> None:
        self.client, self.body = client, body
        self.track: Track | None = None
        self.seconds, self.speed, self.playing = 0.0, 1.0, True
        self.turn = threading.Lock()  # the clock's thread and those of buttons
        colour = tuple(round(255 * share) for share in CLAY)
        client.scene.set_up_direction("+z")
        # What follows the body is the world: it slides the other way, so that a person may turn the camera meanwhile.
        self.world = client.scene.add_frame("/world", show_axes=False)
        client.scene.add_grid(
            "/world/floor",
            width=30,
            height=30,
            fade_distance=12,
            shadow_opacity=0.3,
            cell_color=(225, 225, 225),
            section_color=(190, 190, 190),
        )
        self.mesh = client.scene.add_mesh_skinned(
            "/world/body",
            body.v_template_V3.numpy(),
            body.faces_F3.numpy(),
            skin_weights=body.weights_VJ.numpy(),
            bone_wxyzs=[(1.0, 0.0, 0.0, 0.0)] * 24,
            bone_positions=body.joints_J3.numpy(),
            color=colour,
        )
        client.camera.fov = math.radians(35)
        client.camera.position = (0.0, -4.4, 0.9)
        client.camera.look_at = (0.0, 0.0, 0.0)  # last: a new position takes the old target along

    @property
    def length(self) -> float:
        """Seconds from the first frame to the last."""
        return 0.0 if self.track is None else self.track.length

    def show(self, motion: Motion) -> None:
        """Play another motion, from where the last one was: a slider that is dragged does not start it anew."""
        track = Track.of(motion, self.body)
        with self.turn:
            self.track, self.seconds = track, min(self.seconds, track.length)
            self.pose()

    def seek(self, share: float) -> None:
        """Stand still at a share of the motion."""
        with self.turn:
            self.playing, self.seconds = False, share * self.length
            self.pose()

    def tick(self, passed: float) -> None:
        """Go on by some seconds of the clock."""
        with self.turn:
            if self.playing and self.length:
                self.seconds = (self.seconds + passed * self.speed) % self.length
                self.pose()

    def pose(self) -> None:
        """Pose the body as it is now."""
        if self.track is None:
            return
        world, bones, places = self.track.at(self.seconds)
        with self.client.atomic():
            self.world.position = world
            for bone, wxyz, place in zip(self.mesh.bones, bones, places, strict=True):
                bone.wxyz, bone.position = wxyz, place
