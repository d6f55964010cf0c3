"""Hold a finished quickstart against what it promises: `python workflows/check_quickstart.py FOLDER SECOND_RUN.txt`."""

import json
import re
import sys
from pathlib import Path

LARGEST = 60e6  # bytes of the page that generates
PARTS = ("text.onnx", "span.onnx", "decoder.onnx", "body.onnx", "tokenizer.json", "runtime.wasm")


def is_model_page(file: Path) -> bool:
    """Whether a page has the model, its text tower and the runtime in it, and is small enough to be sent."""
    page = file.read_text(encoding="utf-8") if file.exists() else ""
    return file.exists() and file.stat().st_size < LARGEST and all(f'"{part}"' in page for part in PARTS)


def check(folder: Path, second_run: str) -> list[str]:
    """What is not as promised, a line each."""
    figures = json.loads((folder / "run/evaluation.json").read_text())
    page = (folder / "gallery.html").read_text(encoding="utf-8")
    again = re.findall(r"(\d[\d,]*) \w+ done", second_run)
    promised = {
        "MPJPE under 30 mm": figures["reconstruction"]["mpjpe_mm"] < 30,
        "text -> motion R@3 at least 0.9": figures["text_to_motion"]["R@3"] >= 0.9,
        "ten generated motions, an edit and an interpolation": all(
            len(list((folder / name).glob("*.npz"))) >= least
            for name, least in (("generated", 10), ("edited", 3), ("interpolated", 5))
        ),
        "a gallery with every motion in it, to play and to save": page.count('<figure class="card"') >= 20 + 18
        and all(
            len(re.findall(rf'(?:data-name|download)="[^"]*\.{kind}"', page)) >= 2 * 20 + 18
            for kind in ("npz", "bvh", "glb")
        )
        and page.count('">H4sI') >= 3 * (2 * 20 + 18),
        "a page that generates, in one file under 60 MB": is_model_page(folder / "model.html"),
        "a second run does nothing": "page: nothing to do" in second_run
        and set(again) == {"0"}
        and "0 of" in second_run,
    }
    if "phrases" in figures:
        # Twenty phrases move by two or three from one training to the next of the same recipe, when sums are rounded
        # otherwise: the bounds of what is decoded are what a broken one misses, the record has the figures.
        for way, first, third in (("through_encoder", 0.7, 0.85), ("decoded_back", 0.6, 0.7)):
            found = figures["phrases"][way]
            promised[f"phrases {way}: R@1 at least {first}, R@3 at least {third}"] = (
                found["R@1"] >= first and found["R@3"] >= third
            )
    for promise, kept in promised.items():
        print(f"{'ok ' if kept else 'NOT'} {promise}")
    return [promise for promise, kept in promised.items() if not kept]


if __name__ == "__main__":
    sys.exit(len(check(Path(sys.argv[1]), Path(sys.argv[2]).read_text())))
