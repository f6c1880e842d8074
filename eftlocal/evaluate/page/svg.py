"""What matplotlib writes as SVG, made fit for the inside of an HTML page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

_REFERENCE = re.compile(r"url\(#([^)]*)\)")
_FONT = re.compile(r"font(-family)?: [^;]*;?\s*")
_SIZE = re.compile(r"font: ([\d.]+)px")


def inline(
    written: str, key: str, label: str, titles: Mapping[str, str], colours: Mapping[str, str]
) -> str:
    """The svg element for a page of HTML: no names of namespaces, no fonts, no style sheet.

    Args:
        written: a whole SVG document.
        key: set before all ids that something refers to; the others are dropped.
        label: what the picture is called for those who cannot see it.
        titles: id of a group -> what it says on pointing.
        colours: a colour as it was drawn -> as the page knows it.
    """
    root = ElementTree.fromstring(written)
    parents = {child: parent for parent in root.iter() for child in parent}
    for element in list(root.iter()):
        element.tag = element.tag.split("}")[-1]
        if element.tag in ("metadata", "style"):
            parents[element].remove(element)
    used = {name for element in root.iter() for name in _referred(element)}
    for element in root.iter():
        _rewrite(element, key, used, titles, colours)
    width, height = (root.get(name, "").removesuffix("pt") for name in ("width", "height"))
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "width": width,
        "height": height,
        "role": "img",
        "aria-label": label,
    }
    for element in root.iter():
        element.tail = "\n" if element.tag in ("g", "defs") else None
    return ElementTree.tostring(root, encoding="unicode")


def _referred(element: ElementTree.Element) -> set[str]:
    """The ids that an element refers to."""
    texts = " ".join(element.attrib.values())
    links = {value[1:] for name, value in element.attrib.items() if name.endswith("href")}
    return links | set(_REFERENCE.findall(texts))


def _rewrite(
    element: ElementTree.Element,
    key: str,
    used: set[str],
    titles: Mapping[str, str],
    colours: Mapping[str, str],
) -> None:
    """One element with its own ids, colours and title."""
    attributes: dict[str, str] = {}
    title = titles.get(element.get("id", ""))
    for name, value in element.attrib.items():
        name = name.split("}")[-1]
        if name == "id" and value not in used:
            continue
        if name == "id":
            value = f"{key}-{value}"
        elif name == "href":
            value = f"#{key}-{value[1:]}"
        elif name == "style":
            value = _SIZE.sub(r"font-size: \1px; font", value)
            value = _FONT.sub("", value)
        value = _REFERENCE.sub(rf"url(#{key}-\1)", value)
        for drawn, known in colours.items():
            value = value.replace(drawn, known)
        attributes[name] = value
    element.attrib = attributes
    if title is not None:
        child = ElementTree.Element("title")
        child.text = title
        element.insert(0, child)
