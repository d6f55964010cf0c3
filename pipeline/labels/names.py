"""What a recording is called, wherever it lies: the names of AMASS's data sets, then and now, and its own split."""

import functools
from collections.abc import Sequence

# Names of AMASS's data sets: today's, then older ones and those of BABEL's folders.
DATASETS = {
    "BMLrub": ("BioMotionLab_NTroje", "BioMotionLabNTroje"),
    "DFaust": ("DFaust_67", "DFaust67"),
    "EyesJapanDataset": ("Eyes_Japan_Dataset",),
    "HDM05": ("MPI_HDM05", "MPIHDM05"),
    "MoSh": ("MPI_mosh", "MPImosh", "MPI_MoSh"),
    "PosePrior": ("MPI_Limits", "MPILimits", "MPIlimits"),
    "SSM": ("SSM_synced", "SSMsynced"),
    "TCDHands": ("TCD_handMocap", "TCDhandMocap"),
    "Transitions": ("Transitions_mocap", "Transitionsmocap"),
    **dict.fromkeys(
        (
            "ACCAD",
            "BMLhandball",
            "BMLmovi",
            "CMU",
            "CNRS",
            "DanceDB",
            "EKUT",
            "GRAB",
            "HUMAN4D",
            "HumanEva",
            "KIT",
            "SFU",
            "SOMA",
            "TotalCapture",
            "WEIZMANN",
        ),
        (),
    ),
}
DATASET_ALIASES = {old: name for name, others in DATASETS.items() for old in others}
# AMASS's own split by data set; everything else is training data.
AMASS_SPLIT = dict.fromkeys(("Transitions", "SSM"), "test") | dict.fromkeys(("HumanEva", "HDM05", "SFU", "MoSh"), "val")
ENDINGS = (".npz", ".npy", ".bvh", ".amc", ".c3d", ".pkl", ".pt", ".smpl", ".glb", ".gltf", ".vrma", ".vrm")
KINDS = ("_poses", "_stageii", "_smpl")
BELOW_A_SET = 2  # AMASS's SET/SUBJECT/CLIP
TWIN = "_M"  # at the end of a clip's name, as BONES-SEED writes it: the mirror image of the clip without


@functools.lru_cache(maxsize=1 << 16)  # labels and files are told by it several times each
def parts_of(path: str) -> tuple[str, ...]:
    """A path's folders and name without ending, data sets by today's name; what is inside an archive as if unpacked."""
    parts = [part for part in path.replace("\\", "/").replace("!/", "/").replace(" ", "_").split("/")]
    parts = [DATASET_ALIASES.get(part, part) for part in parts if part not in ("", ".", "..")]
    return (*parts[:-1], clip_name(parts[-1])) if parts else ()


def clip_name(name: str) -> str:
    """A file's name without its ending and without AMASS's `_poses` or `_stageii`, whatever their case."""
    for endings in (ENDINGS, KINDS):
        name = next((name[: -len(each)] for each in endings if name.lower().endswith(each)), name)
    return name


def from_set_on(parts: Sequence[str]) -> tuple[str, ...]:
    """The parts from the name of AMASS's data set on; all of them where there is none."""
    known = [place for place, part in enumerate(parts) if part in DATASETS]
    deep = [place for place in known if place < len(parts) - BELOW_A_SET]
    return tuple(parts[(deep or known or [0])[-1] :])


def sequence_key(path: str) -> str:
    """What one recording is called whatever its file is: current data set name, no `_poses` or `_stageii` ending.

    Folders above a data set of AMASS's say nothing, so BABEL's CMU/CMU/01/x and a disk's D:\\AMASS\\CMU\\01\\x are one.
    """
    return "/".join(from_set_on(parts_of(path)))


def key_below(above: Sequence[str], name: str) -> str:
    """`sequence_key` of a recording, where the folders `above` the source may name its data set."""
    parts = parts_of(name)
    full = (*parts_of("/".join((*above, "x")))[:-1], *parts)
    at = len(full) - 1 - BELOW_A_SET
    if not any(part in DATASETS for part in parts[:-1]) and at >= 0 and full[at] in DATASETS:
        return "/".join(full[at:])
    return sequence_key(name)


def twin_of(key: str) -> str:
    """The key of a clip's mirror image, and of a mirror image the clip; empty in AMASS's sets, which have none."""
    if key.partition("/")[0] in DATASETS:
        return ""
    return key.removesuffix(TWIN) if key.endswith(TWIN) else key + TWIN
