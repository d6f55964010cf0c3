"""What a browser sends, checked where it arrives: it may be another program, which keeps to no slider's ends."""

import math
from collections.abc import Callable
from typing import Any


def check_arrivals(client: Any, tell: Callable[[str], None]) -> None:
    """Let only values into a client's fields that its page could have sent; `tell` is told of all others.

    viser itself casts whatever comes, closes the connection with a traceback where that fails, and lets a browser set
    any property of a field.
    """
    from viser._messages import GuiUpdateMessage

    gui = client.gui
    interface, pass_on = gui._websock_interface, gui._handle_gui_updates  # viser has no public way to what arrives

    async def arrive(sender: Any, message: Any) -> None:
        known = gui._gui_input_handle_from_uuid
        if not isinstance(message.uuid, str) or not isinstance(message.updates, dict):
            tell("a message that names no field: reload the page")
        elif message.uuid in known and (fault := fault_of(known[message.uuid], message.updates)):
            tell(fault)
        else:
            await pass_on(sender, message)

    interface.unregister_handler(GuiUpdateMessage, pass_on)
    interface.register_handler(GuiUpdateMessage, arrive)


def check_uploads(client: Any, most: int, tell: Callable[[str], None]) -> None:
    """Let a client send one file at a time, of at most `most` bytes; viser itself would keep whatever it is sent."""
    from viser._messages import FileTransferPart, FileTransferStartUpload

    gui = client.gui
    interface, under_way = gui._websock_interface, gui._current_file_upload_states
    start, go_on = gui._handle_file_transfer_start, gui._handle_file_transfer_part

    def begin(sender: Any, message: Any) -> None:
        under_way.clear()
        if not is_number(message.size_bytes) or message.size_bytes > most:
            tell(f"{str(message.filename)[:100]} is larger than {most:,} bytes, which is the most that is read")
        else:
            start(sender, message)

    def part(sender: Any, message: Any) -> None:
        found = under_way.get(message.transfer_uuid)
        if found is None or found["transferred_bytes"] + len(message.content) > most:
            under_way.clear()
        else:
            go_on(sender, message)

    for kind, theirs, ours in ((FileTransferStartUpload, start, begin), (FileTransferPart, go_on, part)):
        interface.unregister_handler(kind, theirs)
        interface.register_handler(kind, ours)


def fault_of(field: Any, updates: dict[Any, Any]) -> str:
    """What is wrong with an update of a field; empty where nothing is."""
    label = getattr(field, "label", "a button")
    if set(updates) != {"value"}:
        return f"{label}: only its value can be changed"
    wanted = expected(field, updates["value"])
    return wanted and f"{label}: {updates['value']!r:.60}, expected {wanted}"


def expected(field: Any, value: Any) -> str:
    """What a field should have been given; empty where it was."""
    import viser

    if isinstance(field, viser.GuiSliderHandle):
        fits = is_number(value) and field.min <= value <= field.max
        return "" if fits else f"a number from {field.min:g} to {field.max:g}"
    if isinstance(field, viser.GuiButtonGroupHandle):
        return "" if value in field.options else f"one of {', '.join(field.options)}"
    if isinstance(field, viser.GuiTextHandle):
        return "" if isinstance(value, str) else "a text"
    if isinstance(field, viser.GuiDropdownHandle):
        return "" if value in field.options else "one of what it lists"
    if isinstance(field, viser.GuiUploadButtonHandle):
        return "a file, and no value"
    return "" if isinstance(value, bool) else "true or false"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
