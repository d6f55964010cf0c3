"""Label files of any kind, told by what they are, and several of them together."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mclip.pipeline.labels.babel import read_babel
from mclip.pipeline.labels.humanml3d import is_humanml3d, read_humanml3d
from mclip.pipeline.labels.seed import is_seed, read_seed
from mclip.pipeline.labels.spans import LabelError, LabelRules, Labels, Span
from mclip.pipeline.labels.tables import read_split, read_table

TABLES = (".csv", ".jsonl")
OF_AMASS = Path("amass")  # in place of a split file: AMASS's own, by data set, whatever labels say


def read_labels(paths: Sequence[Path], split: Path | None = None, rules: LabelRules | None = None) -> Labels:
    """Labels of several sources together: BABEL's folder or json, HumanML3D's or BONES-SEED's, a .csv or .jsonl.

    All spans are kept and know their source. Where sources disagree on a split, the file `split` decides, then the
    source that is named first; `amass` there means AMASS's own split of whole data sets, and no other.
    """
    spans: dict[str, list[Span]] = {}
    splits = read_split(split) if split and split != OF_AMASS else {}
    seconds: dict[str, float] = {}
    passed_over: Counter[str] = Counter()
    for each in map(read_source, paths):
        for key, found in each.spans.items():
            spans.setdefault(key, []).extend(found)
        splits = {**each.split, **splits}
        seconds = {**each.seconds, **seconds}
        passed_over.update(each.passed_over)
    if split == OF_AMASS:
        splits = {}
    together = {key: tuple(found) for key, found in spans.items()}
    return Labels(together, splits, dict(passed_over), seconds, rules or LabelRules())


def read_source(path: Path) -> Labels:
    """Labels of one source, told by what it is. LabelError when there is none."""
    if is_seed(path):
        return read_seed(path)
    if path.suffix.lower() in TABLES:
        return read_table(path)
    if is_humanml3d(path):
        return read_humanml3d(path)
    if path.exists():
        return read_babel(path)
    raise LabelError(
        f"{path}: no such file or folder; expected BABEL's, HumanML3D's or BONES-SEED's folder, or a .csv or .jsonl"
    )
