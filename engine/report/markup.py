"""HTML elements whose text is escaped unless it is HTML already."""

from __future__ import annotations

from html import escape

VOID = frozenset({"meta", "link", "br"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, /, *children: str, **attributes: str) -> Html:
    """`<tag attributes>children</tag>`; a trailing underscore of an attribute is dropped (`class_`)."""
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    if tag in VOID:
        return Html(f"<{tag}{said}>")
    return Html(f"<{tag}{said}>{join(*children)}</{tag}>")


def join(*children: str) -> Html:
    """The children one after the other, text escaped."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children))
