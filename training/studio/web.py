"""The page that the studio serves: viser's own, with a script of ours in front of it."""

import functools
import tempfile
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("page.js")


@functools.cache
def page_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder with the page, which is there as long as this program runs."""
    import viser

    page = (Path(viser.__file__).parent / "client/build/index.html").read_bytes()
    assert page.count(b"<head>") == 1, "another page than the one that this was written for"
    folder = tempfile.TemporaryDirectory(prefix="mclip-studio-")
    script = b"<head><script>" + SCRIPT.read_bytes() + b"</script>"
    Path(folder.name, "index.html").write_bytes(page.replace(b"<head>", script))
    return folder


class OwnPage:
    """Of a viser server: one that serves our page. viser has no public way to say which."""

    @property
    def _websock_server(self) -> Any:
        return self.__dict__["websock_server"]

    @_websock_server.setter
    def _websock_server(self, server: Any) -> None:
        server._http_server_root = Path(page_folder().name)
        self.__dict__["websock_server"] = server
