"""Show objects in a job: text goes to the log, pictures and pages into the folder `notebook/`."""

import base64
import os
import sys
from typing import Any, Iterator, List, Optional, Tuple

_PAGE = '<!doctype html>\n<meta charset="utf-8">\n'
# The first form that an object has is saved.
_KINDS = (
    ("image/png", "_repr_png_", "png"),
    ("image/jpeg", "_repr_jpeg_", "jpg"),
    ("image/svg+xml", "_repr_svg_", "svg"),
    ("text/html", "_repr_html_", "html"),
)


class _State:
    folder = "notebook"
    root = "."
    cell = 0
    shown = 0  # number of saved files of this cell


def begin(folder: str, root: str) -> None:
    _State.folder, _State.root = folder, root


def begin_cell(number: int) -> None:
    _State.cell, _State.shown = number, 0


def folder() -> str:
    return _State.folder


def current_cell() -> int:
    return _State.cell


def is_first_process() -> bool:
    """Return whether this is the first process of a training; all of them run the whole script."""
    names = ["LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"]
    if "WORLD_SIZE" in os.environ:  # without WORLD_SIZE, RANK may mean anything, such as the rank of a LoRA
        names.append("RANK")
    return all(os.environ.get(name, "0") in ("", "0") for name in names)


def log(text: str) -> None:
    print("[cell %d] %s" % (_State.cell, text), flush=True)


def show(value: Any) -> None:
    """Show the value of a cell's last expression, as Jupyter does."""
    if value is not None:
        display(value)


def display(*values: Any, **_: Any) -> None:
    """Replace `IPython.display.display` in a job."""
    for value in values:
        _display_one(value)


def clear_output(*_: Any, **__: Any) -> None:
    """Do nothing: a log has no output to clear."""


def show_html(text: str) -> None:
    """Save the page of `%%html`."""
    save("html", (_PAGE + text).encode("utf-8"))


def show_svg(text: str) -> None:
    """Save the picture of `%%svg`."""
    save("svg", text.encode("utf-8"))


def _display_one(value: Any) -> None:
    if _is_figure(value):
        save_figure(value)
        return
    file = None if isinstance(value, type) else _picture_or_page(value)
    markdown = None if isinstance(value, type) else _call(value, "_repr_markdown_")
    if file is None or file[0] == "html":  # a table is useful as text too
        text = markdown if isinstance(markdown, str) else repr(value)
        if file is None or not _is_default_repr(text):
            print(text, flush=True)
    if file is not None:
        save(*file)


def _is_default_repr(text: str) -> bool:
    return text.startswith("<") and " object" in text


def _picture_or_page(value: Any) -> Optional[Tuple[str, bytes]]:
    """Return (suffix, content) of the object's best form, or None."""
    bundle = _call(value, "_repr_mimebundle_")
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    for mime, method, suffix in _KINDS:
        content = bundle.get(mime) if isinstance(bundle, dict) else None
        content = _call(value, method) if content is None else content
        content = content[0] if isinstance(content, tuple) else content
        if content is None:
            continue
        if isinstance(content, str):
            is_picture = suffix in ("png", "jpg")
            content = base64.b64decode(content) if is_picture else (_page(suffix) + content).encode("utf-8")
        return suffix, content
    return None


def _page(suffix: str) -> str:
    return _PAGE if suffix == "html" else ""


def _call(value: Any, method: str) -> Any:
    """Return one form of the object; None when it does not have this form, or fails."""
    try:
        return getattr(value, method)()
    except Exception:  # noqa: BLE001 - an object that fails to draw itself must not end a training
        return None


def save(suffix: str, content: bytes) -> None:
    """Write the next file of this cell, `notebook/cell-03-1.png`."""
    path = _next_path(suffix)
    if path is not None:
        with open(path, "wb") as file:
            file.write(content)
        _log_path(path)


def _next_path(suffix: str) -> Optional[str]:
    """Return None in every process except the first, because all of them show the same."""
    if not is_first_process():
        return None
    _State.shown += 1
    os.makedirs(_State.folder, exist_ok=True)
    return os.path.join(_State.folder, "cell-%02d-%d.%s" % (_State.cell, _State.shown, suffix))


def _log_path(path: str) -> None:
    log("shown in " + os.path.relpath(path, _State.root))


def _is_figure(value: Any) -> bool:
    figure = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    return figure is not None and isinstance(value, figure)


def save_figure(figure: Any) -> None:
    """Save a figure of matplotlib and close it, because a notebook shows each figure once."""
    path = _next_path("png")
    if path is not None:
        figure.savefig(path, dpi="figure", bbox_inches="tight")
        _log_path(path)
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)


def open_figures() -> List[Any]:
    """Return the figures that pyplot has open."""
    return list(_open_figures())


def _open_figures() -> Iterator[Any]:
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    for number in pyplot.get_fignums() if pyplot is not None else ():
        yield pyplot.figure(number)


def end_of_cell() -> None:
    """Save the figures that the cell has drawn and not shown. A figure that cannot be saved is logged."""
    try:
        for figure in open_figures():
            save_figure(figure)
    except Exception as error:  # noqa: BLE001
        log("a figure could not be saved: %s: %s" % (type(error).__name__, error))
