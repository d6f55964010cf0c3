"""A body on a browser's screen, in motion."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mclip.pipeline.draw.looks import CLAY
from mclip.pipeline.geometry.body import Body
from mclip.pipeline.geometry.rotations import matrix_to_quaternion
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.training.show.motion import Motion
from mclip.training.show.page import BESIDE, glide

GREY = (0.6, 0.6, 0.63)  # of bodies beside the first


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
    """Bodies side by side on a browser's screen, and how far they are in their motions."""

    def __init__(self, client: Any, body: Body) -> None:
        self.client, self.body = client, body
        self.tracks: tuple[Track, ...] = ()
        self.seconds, self.speed, self.playing = 0.0, 1.0, True
        self.turn = threading.Lock()  # the clock's thread and those of buttons
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
        self.meshes = [self.add_body(CLAY)]
        client.camera.fov = math.radians(35)
        self.look()

    def add_body(self, colour: tuple[float, float, float]) -> Any:
        """A body more."""
        number = len(getattr(self, "meshes", ()))
        return self.client.scene.add_mesh_skinned(
            f"/world/body{number}",
            self.body.v_template_V3.numpy(),
            self.body.faces_F3.numpy(),
            skin_weights=self.body.weights_VJ.numpy(),
            bone_wxyzs=[(1.0, 0.0, 0.0, 0.0)] * 24,
            bone_positions=self.body.joints_J3.numpy(),
            color=tuple(round(255 * share) for share in colour),
        )

    def look(self) -> None:
        """Stand where all bodies are seen; on a phone's screen in its upper two fifths, for the panel covers the rest.

        Half the view's height is 0.315 of the distance, at 35 degrees. 1.9 times as far, a body is 0.33 of it.
        """
        camera, bodies = self.client.camera, max(1, len(self.tracks))
        upright = camera.aspect < 0.8
        wide = (bodies - 1) * BESIDE + 1.5
        away = max(4.4, wide / 2 / (0.315 * camera.aspect)) * (1.9 if upright else 1.0)
        down = 0.19 * away if upright else 0.0
        camera.position = (0.0, -away, 0.9 - down)
        camera.look_at = (0.0, 0.0, -down)  # last: a new position takes the old target along

    @property
    def length(self) -> float:
        """Seconds from the first frame to the last, of the longest."""
        return max((track.length for track in self.tracks), default=0.0)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.tracks[0].motion.fps if self.tracks else 30.0

    def show(self, motions: Sequence[Motion]) -> None:
        """Play other motions, from where the last were: a slider that is dragged does not start them anew."""
        tracks = tuple(Track.of(motion, self.body) for motion in motions)
        with self.turn:
            other, self.tracks = len(tracks) != len(self.tracks), tracks
            self.seconds = min(self.seconds, self.length)
            while len(self.meshes) < len(tracks):
                self.meshes.append(self.add_body(GREY))
            for number, mesh in enumerate(self.meshes):
                mesh.visible = number < len(tracks)
            if other:
                self.look()
            self.pose()

    def seek(self, seconds: float) -> None:
        """Stand still at a time."""
        with self.turn:
            self.playing, self.seconds = False, min(max(seconds, 0.0), self.length)
            self.pose()

    def tick(self, passed: float) -> None:
        """Go on by some seconds of the clock."""
        with self.turn:
            if self.playing and self.length:
                self.seconds = (self.seconds + passed * self.speed) % self.length
                self.pose()

    def pose(self) -> None:
        """Pose the bodies as they are now."""
        if not self.tracks:
            return
        with self.client.atomic():
            self.world.position = self.tracks[0].at(self.seconds)[0]
            for number, (track, mesh) in enumerate(zip(self.tracks, self.meshes, strict=False)):
                aside = np.array([(number - (len(self.tracks) - 1) / 2) * BESIDE, 0.0, 0.0])
                _, turns, places = track.at(self.seconds)
                for bone, wxyz, place in zip(mesh.bones, turns, places + aside, strict=True):
                    bone.wxyz, bone.position = wxyz, place
