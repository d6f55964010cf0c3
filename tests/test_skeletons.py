"""Other programs' skeletons: one motion in every form comes back, strange ones are refused by name, nothing breaks."""

import itertools
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mclip.cli import cli
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.prepare.bvh import parse_motion
from mclip.pipeline.skeletons.bvh_text import read_bvh
from mclip.pipeline.skeletons.frames import rest_places
from mclip.pipeline.skeletons.names import joints_by_name, side_and_part
from mclip.workflows.make_bvh_like import FORMS, Form, arms_at, bvh_text, columns, random_axes, still_without

BONES = [("hip", "knee"), ("knee", "ankle"), ("ankle", "foot"), ("shoulder", "elbow"), ("elbow", "wrist")]
BONES = [(f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in BONES]
SCHEMES = (
    ("~_Hip ~_Knee ~_Ankle ~_Foot ~_Collar ~_Shoulder ~_Elbow ~_Wrist", ("L", "R")),
    ("thigh.~ calf.~ foot.~ toe.~ clavicle.~ upperarm.~ lowerarm.~ hand.~", ("L", "R")),
    ("x~UpLeg x~Leg x~Foot x~Toe x~Shoulder x~Arm x~ForeArm x~Hand", ("Left", "Right")),
    ("HIP_~ KNEE_~ ANKLE_~ TOE_~ COLLAR_~ SHOULDER_~ ELBOW_~ WRIST_~", ("LEFT", "RIGHT")),
)
ORDERS = ["".join(order) for order in itertools.permutations("XYZ")]


def random_motion(seed: int, frames: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Local turns (T, 24, 3, 3) and the pelvis's places (T, 3) of a body that stands, wanders and bends its joints.

    Knees and elbows bend by 20 to 80 degrees the way they do, all other joints swing by 15 degrees about any axis.
    """
    generator = np.random.default_rng(seed)
    time = np.linspace(0, 4, frames)[:, None]
    swing = 15 * np.sin(generator.uniform(1, 3, 72) * time + generator.uniform(0, 6, 72)).reshape(frames, 24, 3)
    bend = 50 + 30 * np.sin(generator.uniform(1, 3, 4) * time + generator.uniform(0, 6, 4))
    for at, (joint, axis, sign) in enumerate(
        (("left_knee", 0, 1), ("right_knee", 0, 1), ("left_elbow", 1, -1), ("right_elbow", 1, 1))
    ):
        swing[:, JOINTS.index(joint)] = np.eye(3)[axis] * sign * bend[:, at, None]
    for joint, sign in (("left_shoulder", -1), ("right_shoulder", 1)):
        swing[:, JOINTS.index(joint), 2] += 60 * sign  # arms hang rather than fly
    local = Rotation.from_rotvec(swing.reshape(-1, 3), degrees=True).as_matrix().reshape(frames, 24, 3, 3)
    turn = Rotation.from_euler("z", generator.uniform(0, 360), degrees=True) * Rotation.from_euler(
        "x", 90, degrees=True
    )
    local[:, 0] = turn.as_matrix() @ local[:, 0]
    steps = np.concatenate(
        (np.cumsum(generator.normal(0, 0.03, (frames, 2)), axis=0), np.full((frames, 1), 0.95)), axis=1
    )
    return local, steps


def world_turns(local: np.ndarray) -> dict[str, np.ndarray]:
    """Turns of every joint to the world's axes, by numpy alone."""
    world = [local[:, 0]]
    for joint in range(1, 24):
        world.append(world[PARENTS[joint]] @ local[:, joint])
    return dict(zip(JOINTS, world, strict=True))


def turns_read(text: str) -> dict[str, np.ndarray]:
    """The same of the motion that is read from a BVH file's text."""
    poses = parse_motion(text.encode()).poses_TJ3
    return world_turns(Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3))


def bone_degrees(a: dict[str, np.ndarray], b: dict[str, np.ndarray], joints: set[str]) -> float:
    """The largest angle between bones of two motions, in any frame, of limbs that a form has."""
    rest, worst = rest_places(), 0.0
    for start, end in BONES:
        if {start, end} <= joints:
            bone = (rest[end] - rest[start]) / np.linalg.norm(rest[end] - rest[start])
            sine = np.linalg.norm(np.cross(a[start] @ bone, b[start] @ bone), axis=-1)
            cosine = ((a[start] @ bone) * (b[start] @ bone)).sum(-1)
            worst = max(worst, float(np.degrees(np.arctan2(sine, cosine)).max()))
    return worst


def joint_degrees(a: dict[str, np.ndarray], b: dict[str, np.ndarray], joints: set[str]) -> float:
    """The largest angle between the turns of two motions' joints, in any frame."""
    between = [Rotation.from_matrix(a[joint].swapaxes(-1, -2) @ b[joint]).magnitude().max() for joint in joints]
    return float(np.degrees(max(between)))


@pytest.mark.filterwarnings("ignore:Gimbal lock")
@pytest.mark.parametrize("name", FORMS)
def test_one_motion_in_every_program_s_form_comes_back(name):
    form = FORMS[name]
    local, root = random_motion(1)
    local = still_without(form, local)
    truth, found = world_turns(local), turns_read(bvh_text(form, local, root))
    assert bone_degrees(truth, found, set(form.names)) < 0.5
    account = parse_motion(bvh_text(form, local, root).encode()).account
    assert account["up"] == form.up
    # The hips of two forms are put elsewhere in the pelvis, and with them the middle of the body's length.
    assert account["metres"] == pytest.approx(form.unit, rel=1e-3)
    assert account["degrees"] < 5


@pytest.mark.filterwarnings("ignore:Gimbal lock")
@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if not form.axes])
def test_a_rest_pose_that_stands_gives_back_every_turn(name):
    form = FORMS[name]
    local, root = random_motion(2)
    local = still_without(form, local)
    found = turns_read(bvh_text(form, local, root))
    # The spine leans as a whole where another skeleton's pelvis or neck is longer; the joints it has are right.
    limbs = {joint for joint in form.names if joint.split("_")[0] in ("left", "right", "pelvis")}
    assert joint_degrees(world_turns(local), found, limbs) < 0.5


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    order=st.sampled_from(ORDERS),
    up=st.sampled_from(("y", "z", "-y")),
    unit=st.sampled_from((1.0, 0.01, 0.001, 0.0254)),
    six=st.booleans(),
    scheme=st.integers(0, 3),
)
@pytest.mark.filterwarnings("ignore:Gimbal lock")
def test_any_rest_pose_order_unit_axis_and_scheme_of_names_gives_back_the_bones(seed, order, up, unit, six, scheme):
    axes = random_axes(seed) if seed % 2 else arms_at(float(seed % 90))
    limbs, sides = SCHEMES[scheme]
    form = Form(limbs=limbs, sides=sides, axes=axes, order=order, up=up, unit=unit, six=six, number="{:.7f}".format)
    local, root = random_motion(seed)
    found = turns_read(bvh_text(form, local, root))
    assert bone_degrees(world_turns(still_without(form, local)), found, set(form.names)) < 0.5


WORDS = (  # what joints of a limb are called, ~ for the side
    "~Hip ~Knee ~Ankle ~Toe ~Collar ~Shoulder ~Elbow ~Wrist",
    "~UpLeg ~Leg ~Foot ~ToeBase ~Shoulder ~Arm ~ForeArm ~Hand",
    "~Thigh ~Calf ~Foot ~Ball ~Clavicle ~UpperArm ~LowerArm ~Hand",
    "~UpperLeg ~LowerLeg ~Foot ~Toes - ~UpperArm ~ForeArm ~Hand",
)
WRITTEN = (
    "{side}{part}",
    "{side}_{part}",
    "{part}_{side}",
    "{part}.{side}",
    "rig:{side}{part}",
    "x9_{part}-{side}_jnt",
)
SIDES = (("L", "R"), ("l", "r"), ("Left", "Right"), ("left", "right"), ("LEFT", "RIGHT"))


@settings(max_examples=40, deadline=None)
@given(
    words=st.sampled_from(WORDS),
    written=st.sampled_from(WRITTEN),
    sides=st.sampled_from(SIDES),
    right_first=st.booleans(),
    swapped=st.booleans(),
    seed=st.integers(0, 10**6),
)
@pytest.mark.filterwarnings("ignore:Gimbal lock")
def test_sides_in_any_writing_and_order_and_exchanged_give_back_the_bones(
    words, written, sides, right_first, swapped, seed
):
    """Where left and right are exchanged in all names, toes and knees tell."""
    part = [word.replace("~", "") for word in words.split()]
    limbs = " ".join(each if each == "-" else written.format(side="~", part=each) for each in part)
    axes = random_axes(seed) if seed % 2 else {}
    form = Form(limbs=limbs, sides=sides[::-1] if swapped else sides, axes=axes, right_first=right_first)
    local, root = random_motion(seed)
    found = turns_read(bvh_text(form, local, root))
    assert bone_degrees(world_turns(still_without(form, local)), found, set(form.names)) < 0.5


def test_names_without_a_meaning_are_understood_by_the_tree_and_the_sides_by_toes_and_knees():
    local, root = random_motion(3)
    for sides in (("p", "q"), ("q", "p")):
        form = Form("b0 b1 b2 b3 b4 b5", "~10 ~11 ~12 ~13 ~20 ~21 ~22 ~23", sides, columns_along())
        text = bvh_text(form, local, root)
        assert parse_motion(text.encode()).account["by"] == "shape"
        assert bone_degrees(world_turns(still_without(form, local)), turns_read(text), set(form.names)) < 0.5


def columns_along() -> dict[str, np.ndarray]:
    """Axes of every joint with x up at rest."""
    return dict.fromkeys(JOINTS, columns(np.eye(3)[1], np.eye(3)[2]))


def test_names_that_are_mirrored_are_found_out_and_told():
    local, root = random_motion(4)
    text = bvh_text(Form(sides=("Right", "Left")), local, root)
    recording = parse_motion(text.encode())
    assert recording.account["notes"] == ["left and right are exchanged in it: taken by where toes and knees point"]
    form = Form()
    assert bone_degrees(world_turns(still_without(form, local)), turns_read(text), set(form.names)) < 0.5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mixamorig:LeftUpLeg", ("left", "upleg")),
        ("Bip01 L Thigh", ("left", "thigh")),
        ("thigh.L", ("left", "thigh")),
        ("J_Bip_R_UpperLeg", ("right", "upperleg")),
        ("lThigh", ("left", "thigh")),
        ("thigh_r", ("right", "thigh")),
        ("Avatar_LeftUpLeg", ("left", "upleg")),
        ("SHOULDER_LEFT", ("left", "shoulder")),
        ("lfemur", ("left", "femur")),
        ("rShldr", ("right", "shldr")),
        ("UpperLeg_L", ("left", "upperleg")),
        ("LTOE", ("left", "toe")),
        ("LeftHandThumb1", ("", "")),
        ("thigh_twist_01_l", ("", "")),
        ("Hips", ("", "hips")),
        ("simHips", ("", "hips")),
    ],
)
def test_side_and_part_are_found_anywhere_in_a_name(name, expected):
    assert side_and_part(name) == expected


def test_the_whole_chain_says_what_a_word_means():
    parents = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 7, 10, 11)
    arms = ("Chest", "LeftArm", "LeftForeArm", "x", "RightArm", "RightForeArm")
    mixamo = ("Hips", "LeftUpLeg", "LeftLeg", "LeftFoot", "RightUpLeg", "RightLeg", "RightFoot", *arms)
    soma = ("Hips", "LeftLeg", "LeftShin", "LeftFoot", "RightLeg", "RightShin", "RightFoot", *arms)
    assert [joints_by_name(mixamo, parents)[f"left_{each}"] for each in ("hip", "knee")] == [1, 2]
    assert [joints_by_name(soma, parents)[f"left_{each}"] for each in ("hip", "knee")] == [1, 2]


# --- trees that other programs make of one body


def hips_between(text: str, share: float) -> str:
    """The same with a joint that does not turn above each thigh, at a share of the way from the pelvis to it."""
    for side in ("Left", "Right"):
        head, _, tail = text.partition(f"JOINT {side}UpLeg\n{{\nOFFSET ")
        offset, _, tail = tail.partition("\n")
        bone = np.array(offset.split(), float)
        first, second = (" ".join(f"{x:.6f}" for x in part) for part in (share * bone, (1 - share) * bone))
        # Its own brace closes after the leg's: before the next joint that hangs at the pelvis.
        joint = f"JOINT {side}UpLegJoint\n{{\nOFFSET {first}\nCHANNELS 0\nJOINT {side}UpLeg\n{{\nOFFSET {second}\n"
        leg, end, rest = tail.partition("End Site\n{\nOFFSET 0.0 0.0 0.0\n}\n" + "}\n" * 4)
        text = head + joint + leg + end + "}\n" + rest
    return text


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_hip_that_only_leads_to_the_thigh_is_passed_by(share: float):
    local, root = random_motion(8)
    form = Form(number="{:.7f}".format)
    text = bvh_text(form, still_without(form, local), root)
    truth = world_turns(still_without(form, local))
    assert bone_degrees(truth, turns_read(hips_between(text, share)), set(form.names)) < 0.5


def test_a_neck_that_no_name_tells_goes_on_as_the_trunk_does():
    local, root = random_motion(9)
    form = Form("DEF-spine DEF-spine.001 DEF-spine.002 DEF-spine.003 DEF-spine.004 DEF-spine.005")
    account = parse_motion(bvh_text(form, local, root).encode()).account
    assert (account["by"], account["joints"]) == ("names", 22)


def lying(height: float) -> tuple[np.ndarray, np.ndarray]:
    """A body that lies on its face all the time, its pelvis so many metres above zero."""
    local, _ = random_motion(10)
    local[:, 0] = Rotation.from_euler("x", 180, degrees=True).as_matrix()
    return local, np.tile([0.0, 0.0, height], (len(local), 1))


@pytest.mark.filterwarnings("ignore:Gimbal lock")
def test_a_lying_body_s_up_is_by_the_rest_pose_and_doubted_or_asked_for_where_that_does_not_stand():
    local, root = lying(0.2)
    truth = world_turns(still_without(Form(), local))
    assert bone_degrees(truth, turns_read(bvh_text(Form(), local, root)), set(Form().names)) < 0.5
    along = Form(axes=columns_along())
    doubted = parse_motion(bvh_text(along, *lying(0.0)).encode()).account  # its floor is none of this world's
    assert doubted["notes"][0].startswith("its up is taken for z, and may be ")
    text = bvh_text(along, *lying(0.3)).encode()
    with pytest.raises(MotionError, match=r'its up may be .* say it by a line `up = "'):
        parse_motion(text)
    assert parse_motion(text, {"up": "y"}).account["up"] == "y"


def test_frames_that_are_not_kept_change_nothing_but_the_floor():
    text = plain(FORMS["SOMA"], 41).encode()  # of 120 frames a second
    whole, kept = parse_motion(text), parse_motion(text, fps=30.0)
    assert (kept.fps, len(kept.poses_TJ3)) == (30, 11)
    turns = [Rotation.from_rotvec(each.reshape(-1, 3)) for each in (whole.poses_TJ3[::4], kept.poses_TJ3)]
    assert np.degrees((turns[0].inv() * turns[1]).magnitude().max()) < 3  # twists come from 11 frames instead of 41
    bones = [world_turns(each.as_matrix().reshape(-1, 24, 3, 3)) for each in turns]
    assert bone_degrees(*bones, set(FORMS["SOMA"].names)) < 0.1
    assert np.ptp(whole.trans_T3[::4] - kept.trans_T3, axis=0) == pytest.approx(np.zeros(3), abs=1e-3)
    for fps in (25.0, 240.0, 100.0):
        assert len(parse_motion(text, fps=fps).poses_TJ3) == 41


# --- feet on the floor


def test_feet_of_other_pelvises_stand_on_the_floor():
    local, root = random_motion(5)
    for hips in (0.2, 8.0):
        form = Form(longer={"left_hip": hips, "right_hip": hips, "left_foot": 2.0, "right_foot": 2.0})
        recording = parse_motion(bvh_text(form, local, root + [0, 0, 3]).encode())
        assert abs(recording.account["floor_shift_m"]) > 1
        # The lowest of the body's points are at zero, but for the 5 % of frames that may be under it.
        shifted = parse_motion(bvh_text(form, local, root).encode())
        assert recording.trans_T3 == pytest.approx(shifted.trans_T3, abs=2e-4)


# --- what is refused, by name


def changed(text: str, *changes: tuple[str, str]) -> bytes:
    """A text with every first word replaced by its second one."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text.encode()


def plain(form: Form | None = None, frames: int = 12) -> str:
    """A small file of Mixamo's names, or in another form."""
    local, root = random_motion(6, frames)
    return bvh_text(form or Form(), still_without(form or Form(), local), root)


def two_people(form: Form | None = None) -> bytes:
    """A file with two bodies below one root."""
    head, _, rows = plain(form).partition("MOTION\n")
    body = head.removeprefix("HIERARCHY\n").replace("ROOT", "JOINT")
    top = "HIERARCHY\nROOT world\n{\nOFFSET 0 0 0\nCHANNELS 0\n"
    lines = rows.splitlines()
    rows = "\n".join([*lines[:2], *(f"{line} {line}" for line in lines[2:])])
    return (
        top + body.replace("JOINT ", "JOINT A:") + body.replace("JOINT ", "JOINT B:") + "}\nMOTION\n" + rows
    ).encode()


def dog(rears: int = 0) -> bytes:
    """A body on four legs under a human's names, with a tail's name; it rears up in some of its 12 frames."""
    local, root = random_motion(7, 12)
    local[:] = np.eye(3)
    local[:, 0] = Rotation.from_euler("x", 90 + 80, degrees=True).as_matrix()
    for joint in ("left_hip", "right_hip"):
        local[:, JOINTS.index(joint)] = Rotation.from_euler("x", -80, degrees=True).as_matrix()
    for joint, sign in (("left_shoulder", 1), ("right_shoulder", -1)):
        hang = Rotation.from_euler("z", -90 * sign, degrees=True)
        local[:, JOINTS.index(joint)] = (Rotation.from_euler("x", -80, degrees=True) * hang).as_matrix()
    for joint in ("left_hip", "right_hip"):
        local[:rears, JOINTS.index(joint)] = np.eye(3)
    names = Form(limbs="~UpLeg ~Leg ~Foot Tail_~_ToeBase ~Shoulder ~Arm ~ForeArm ~Hand")
    return bvh_text(names, local, root).encode()


def hand() -> bytes:
    """A wrist with five fingers of three joints."""
    joint = "JOINT finger%d\n{\nOFFSET %d 2 0\nCHANNELS 1 Xrotation\n"
    fingers = "".join("".join(joint % (n, x) for x in (n, 0, 0)) + "}\n" * 3 for n in range(5))
    rows = " ".join("1" for _ in range(18))
    top = "HIERARCHY\nROOT wrist\n{\nOFFSET 0 0 0\nCHANNELS 3 Xrotation Yrotation Zrotation\n"
    return f"{top}{fingers}}}\nMOTION\nFrames: 2\nFrame Time: 0.03\n{rows}\n{rows}\n".encode()


LEGS = tuple(f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "ankle", "foot"))
REFUSED = {
    "no legs": (
        lambda: plain(Form(without=LEGS)).encode(),
        "no joint for left_ankle, left_hip, left_knee, pelvis, right",
    ),
    "two people": (two_people, "two bodies in it.*A:LeftUpLeg.*B:LeftUpLeg"),
    "two people without names": (
        lambda: two_people(Form("a b c d e f", "~g ~h ~i ~j ~k ~m ~n ~o", ("x", "y"))),
        "two bodies in it, by the tree's shape",
    ),
    "four legs": (dog, "a body on four legs"),
    "four legs, upright at times": (lambda: dog(rears=5), "a body on four legs"),
    "a prop": (
        lambda: (
            b"HIERARCHY\nROOT sword\n{\nOFFSET 0 0 0\nCHANNELS 3 Xrotation Yrotation Zrotation\n"
            b"End Site\n{\nOFFSET 0 1 0\n}\n}\nMOTION\nFrames: 2\nFrame Time: 0.03\n0 0 0\n1 1 1\n"
        ),
        "no joint for left_ankle, .* among sword",
    ),
    "a hand": (hand, "no joint for left_ankle, .* among wrist, finger0"),
    "one frame": (lambda: plain(frames=1).encode(), "one frame, a pose and no motion"),
    "10,000 nested joints": (
        lambda: (
            b"HIERARCHY\n"
            + b"ROOT a\n{\nOFFSET 0 1 0\nCHANNELS 1 Xrotation\n"
            + b"JOINT b\n{\nOFFSET 0 1 0\n" * 10_000
            + b"}\n" * 10_001
            + b"MOTION\nFrames: 2\nFrame Time: 0.03\n1\n2\n"
        ),
        "more than 1,000 joints",
    ),
    "no MOTION": (lambda: plain().partition("MOTION")[0].encode(), "no line `MOTION`"),
    "rows of another width": (
        lambda: (
            plain()
            .replace("MOTION", "}\nROOT x\n{\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n}\nMOTION")
            .replace("}\n}\nROOT", "}\nROOT")
            .encode()
        ),
        "frame 0 has 69 numbers, its CHANNELS are 70",
    ),
    "fewer frames than it says": (lambda: changed(plain(), ("Frames: 12", "Frames: 15")), "says 15 frames and has 12"),
    "a word among numbers": (
        lambda: plain().encode()[:-30] + b" abc 1 2 3\n",
        "cannot read 'abc' among its numbers, in frame 11",
    ),
    "a number beyond all": (lambda: plain().encode()[:-9] + b"e999\n", "not finite"),
    "JSON in an OFFSET": (lambda: changed(plain(), ("OFFSET 0.000000", 'OFFSET "x"')), "expected three numbers"),
    "no frame time": (lambda: changed(plain(), ("Frame Time", "Frame Tme")), "no `Frames:` and `Frame Time:`"),
    "a rate of nothing": (lambda: changed(plain(), ("Time: 0.033333", "Time: 0")), "Frame Time is 0 s"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_whole_human_is_refused_by_name(kind):
    make, reason = REFUSED[kind]
    with pytest.raises(MotionError, match=reason):
        parse_motion(make())


def test_a_zero_length_shin_is_refused_by_name():
    lines = plain().splitlines()
    at = next(number for number, line in enumerate(lines) if line == "JOINT LeftLeg")
    lines[at + 2] = "OFFSET 0 0 0"
    with pytest.raises(MotionError, match="left_hip to left_knee is 0 of its units long"):
        parse_motion("\n".join(lines).encode())


TEXTS = {
    "any letter case": lambda text: (
        text.replace("ROOT", "Root").replace("JOINT", "joint").replace("rotation", "ROTATION")
    ),
    "a byte order mark": lambda text: "\ufeff" + text,
    "tabs and carriage returns": lambda text: text.replace(" ", "\t").replace("\n", "\r\n"),
    "no End Sites": lambda text: text.replace("End Site\n{\nOFFSET 0.0 0.0 0.0\n}\n", ""),
    "numbers behind the frames": lambda text: text + "9 0 29 39\n8 1 29\n",
    "a whole frame and a piece more": lambda text: text + text.splitlines()[-1] + "\n" + text.splitlines()[-1][:40],
    "braces on the line of the name": lambda text: text.replace("\n{", " {"),
    "a decimal comma": lambda text: text.replace(".", ","),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_small_deviations_of_the_text_change_nothing(kind):
    text = plain()
    assert parse_motion(TEXTS[kind](text).encode()).poses_TJ3 == pytest.approx(parse_motion(text.encode()).poses_TJ3)


def test_utf_16_is_read():
    assert len(read_bvh(plain().encode("utf-16")).values_TC) == 12


def test_a_last_frame_that_was_cut_short_is_the_one_before_it_again():
    text = plain()
    found, whole = parse_motion(text.encode()[:-60]), parse_motion(text.encode())
    assert found.poses_TJ3[:-1] == pytest.approx(whole.poses_TJ3[:-1])
    assert (found.poses_TJ3[-1] == found.poses_TJ3[-2]).all()


def test_inner_positions_about_zero_are_displacements():
    text = plain(Form(six=True))
    bvh = read_bvh(text.encode())
    head, _, rows = text.partition("MOTION\n")
    values = bvh.values_TC.copy()
    for joint in range(1, len(bvh.names)):
        values[:, bvh.first_J[joint] : bvh.first_J[joint] + 3 * (not bvh.ends_J[joint])] = 0
    lines = [*rows.splitlines()[:2], *(" ".join(f"{x:.6f}" for x in row) for row in values)]
    moved = head + "MOTION\n" + "\n".join(lines)
    assert parse_motion(moved.encode()).poses_TJ3 == pytest.approx(parse_motion(text.encode()).poses_TJ3, abs=1e-6)


def test_two_thousand_damaged_files_are_read_or_refused_and_nothing_else():
    generator = np.random.default_rng(0)
    texts = [plain(form, 4).encode() for form in (Form(), Form(six=True), FORMS["names that say nothing"])]
    outcomes = {True: 0, False: 0}
    for number in range(2000):
        content = bytearray(texts[number % 3])
        for _ in range(generator.integers(1, 4)):
            at, length = generator.integers(0, len(content)), generator.integers(0, 40)
            kind = generator.integers(0, 4)
            if kind == 0:
                del content[at : at + length]
            elif kind == 1:
                content[at : at + length] = generator.bytes(length)
            elif kind == 2:
                content[at:at] = content[: generator.integers(0, 200)]
            else:
                content[at : at + 1] = generator.choice([b"-", b"9", b"}", b"{", b"\n", b"e", b".", b"\x00"])
        try:
            recording = parse_motion(bytes(content))
        except MotionError:
            outcomes[False] += 1
            continue
        outcomes[True] += 1
        assert np.isfinite(recording.poses_TJ3).all()
        assert np.isfinite(recording.trans_T3).all()
    assert min(outcomes.values()) > 50  # both happen, or this says nothing


# --- the command, and the map


def test_skeleton_shows_the_tree_writes_a_map_and_the_map_reads_what_names_do_not(tmp_path: Path):
    # Arms that are called legs: neither names nor shape can be believed.
    odd = Form("a b c d e f", "g~ h~ i~ j~ k~ ~UpLeg ~Leg ~Foot")
    file, map_file = tmp_path / "odd.bvh", tmp_path / "map.toml"
    file.write_text(plain(odd))
    told = CliRunner().invoke(cli, ["skeleton", str(file), "--write-map", str(map_file)])
    assert told.exit_code == 1
    assert "no joint for left_elbow" in told.output
    written = map_file.read_text()
    assert 'left_hip = "LeftUpLeg"' in written
    assert "#   gLeft" in written
    map_file.write_text("\n".join(f'{joint} = "{name}"' for joint, name in odd.names.items()))
    picture = tmp_path / "odd.png"
    told = CliRunner().invoke(cli, ["skeleton", str(file), "--map", str(map_file), "--picture", str(picture)])
    assert told.exit_code == 0, told.output
    assert "gLeft  = left_hip" in told.output
    assert picture.read_bytes()[:4] == b"\x89PNG"
    plain_poses = parse_motion(plain().encode()).poses_TJ3
    assert parse_motion(file.read_bytes(), tomllib.loads(map_file.read_text())).poses_TJ3 == pytest.approx(plain_poses)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("lefthip = 'x'", "lefthip: no joint of SMPL"), ("left_hip = 3", "left_hip: expected a name"), ("]", "no TOML")],
)
def test_a_map_that_is_none_is_refused_before_any_work(tmp_path: Path, content: str, reason: str):
    (tmp_path / "map.toml").write_text(content)
    (tmp_path / "walk.bvh").write_text(plain())
    told = CliRunner().invoke(
        cli, ["prepare", str(tmp_path), str(tmp_path / "s.zarr"), "--map", str(tmp_path / "map.toml")]
    )
    assert told.exit_code == 1
    assert reason in told.output
    assert not (tmp_path / "s.zarr").exists()


def test_a_map_that_names_what_the_file_has_not_is_refused_with_what_it_has():
    with pytest.raises(MotionError, match="the map names Nobody, and it has only Hips, LeftUpLeg"):
        parse_motion(plain().encode(), {"left_hip": "Nobody"})
