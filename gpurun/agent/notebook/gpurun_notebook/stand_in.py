"""Replace `IPython.display` in a job: wrap the real module, or use a small substitute where there is none."""

import sys
from types import ModuleType
from typing import Any, Callable, Dict, Optional

from . import shown as ours


def begin() -> None:
    """Replace the module. Called when the script mentions IPython."""
    try:
        import IPython.display as real
    except ImportError:
        _stand_in()
        return
    for module in (real, sys.modules.get("IPython.core.display_functions"), sys.modules.get("IPython")):
        for name in ("display", "clear_output"):
            if module is not None and callable(getattr(module, name, None)):
                setattr(module, name, getattr(ours, name))


class Shown:
    """Replaces the classes of IPython.display; each has one form."""

    def __init__(self, data: Any = None, url: Optional[str] = None, filename: Optional[str] = None, **_: Any) -> None:
        if filename is None and isinstance(data, str) and type(self).binary:
            filename, data = data, None
        if filename is not None:
            with open(filename, "rb") as file:
                data = file.read()
        self.data = url if data is None else data
        for method in type(self).methods:
            setattr(self, method, lambda: self.data)

    binary = False
    methods: Any = ()

    def __repr__(self) -> str:
        return "<%s object>" % type(self).__name__


_CLASSES = {
    "HTML": ("_repr_html_",), "SVG": ("_repr_svg_",), "Markdown": ("_repr_markdown_",), "Image": ("_repr_png_",),
}  # fmt: skip


def _stand_in() -> None:
    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    package.__path__ = []
    contents: Dict[str, Any] = {
        "display": ours.display,
        "clear_output": ours.clear_output,
        "update_display": ours.display,
        "__getattr__": _class_factory(),
    }
    for name, methods in _CLASSES.items():
        contents[name] = type(name, (Shown,), {"methods": methods, "binary": name == "Image"})
    module.__dict__.update(contents)
    package.__dict__.update({"display": module, "get_ipython": lambda: None, "version_info": (0, 0, 0, "")})
    sys.modules.update({"IPython": package, "IPython.display": module})


def _class_factory() -> Callable[[str], Any]:
    def make_class(name: str) -> Any:
        """Return a substitute for any other class of IPython.display, which shows only its name."""
        if name.startswith("_"):
            raise AttributeError(name)
        return type(name, (Shown,), {})

    return make_class
