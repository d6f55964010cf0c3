"""Draw a motion on characters as three.js plays them in Chromium: the picture of records/characters.md.

npm ci --prefix workflows/viewer
python -m mclip.workflows.draw_characters PICTURE.png
"""

import base64
import json
import subprocess
import tempfile
from pathlib import Path

import click

from mclip.pipeline.characters.character import Character
from mclip.pipeline.files.assets import HOUSE, MOTIONS
from mclip.training.show.motion import read
from mclip.workflows.make_characters import CHARACTERS, write_character

VIEWER = HOUSE / "workflows/viewer"
SHOWN = 6  # frames
PAGE = '<meta charset="utf-8"><body style="margin:0"><script>{script}\ncharacters.draw({rows})</script>'


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--clip", default="kick", show_default=True, help="Which of the embedded motions.")
def main(picture: Path, clip: str) -> None:
    """Write PICTURE, a row for each character."""
    motion = read(MOTIONS / f"EMBEDDED/{clip}/{clip}_poses.npz")
    last = (len(motion.trans_T3) - 1) / motion.fps
    times = [last * step / SHOWN for step in range(SHOWN)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, character in CHARACTERS.items():
            path = Path(folder, name)
            write_character(path, character)
            rotmat, trans = motion.rotmat_TJ33.double().numpy(), motion.trans_T3.double().numpy()
            worn = Character.read(path).wear(rotmat, trans, fps=motion.fps, name=clip)
            click.echo(f"{name}: {worn}")
            rows.append({"name": name, "glb": base64.b64encode(worn.content).decode(), "times": times})
        bundle = ["node_modules/.bin/esbuild", "characters.js", "--bundle", "--format=iife", "--global-name=characters"]
        script = subprocess.run(bundle, cwd=VIEWER, capture_output=True, text=True, check=True).stdout
        page = Path(folder, "page.html")
        page.write_text(PAGE.format(script=script.replace("</script", "<\\/script"), rows=json.dumps(rows)))
        size = f"--window-size={230 * SHOWN},{260 * len(rows)}"
        shot = ["--headless", "--no-sandbox", "--enable-unsafe-swiftshader", "--hide-scrollbars", size]
        shot += ["--virtual-time-budget=60000", f"--screenshot={picture.resolve()}", page.as_uri()]
        subprocess.run(["chromium", f"--user-data-dir={folder}/profile", *shot], check=True, capture_output=True)
    click.echo(picture)


if __name__ == "__main__":
    main()
