"""Old keys of a configuration file, renamed in its text: every other byte stays as it is.

The text is edited where PyYAML says that the keys stand, so no parser has to print it again and no dependency is added.
What comes out is read once more: unless it says what it said before, in today's names, the file is left to its owner.
"""

from typing import Any, NamedTuple

import yaml

from understudy import renames, strict_yaml
from understudy.errors import BadInput
from understudy.renames import Found, Rename

__all__ = ["Done", "upgraded"]


class Done(NamedTuple):
    """A key that was renamed.

    Args:
        line: where it stood, counted from 1; None where the text has it under another name still.
    """

    old: str
    new: str
    line: int | None


class _ByHand(Exception):
    """The text has a shape that is not edited here."""


class _Entry(NamedTuple):
    """A key and its value in a text.

    Args:
        above: the mapping's own entry; None: the mapping is the whole text.
    """

    mapping: yaml.MappingNode
    key: yaml.ScalarNode
    value: yaml.Node
    above: "_Entry | None"


def upgraded(text: str) -> tuple[str, list[Done]]:
    """A configuration's text in today's names.

    Raises:
        BadInput: it has a key under both names, or an old key stands where only a person can rename it.
    """
    value, node = strict_yaml.parsed(text)
    wanted, founds = renames.renamed(value)
    done = {one.old: Done(one.old, one.new, strict_yaml.line_in(node, one.place)) for one in founds}
    for rename in (one for one in renames.RENAMES if one.kind == "key"):
        while (place := _first(value, rename)) is not None:
            found = Found(rename, place)
            try:
                text = _edited(text, node, found)
            except _ByHand as error:
                raise _by_hand(done.get(found.old) or Done(found.old, found.new, None), str(error)) from error
            value, node = strict_yaml.parsed(text)
    if value != wanted:
        raise _by_hand(list(done.values())[-1], "the file's YAML says something else afterwards")
    return text, list(done.values())


def _by_hand(one: Done, why: str) -> BadInput:
    where = f"line {one.line}: " if one.line else ""
    return BadInput(f"{where}`{one.old}` is called `{one.new}`; rename it by hand: {why}")


def _first(value: Any, rename: Rename) -> tuple[str | int, ...] | None:
    return next((one.place for one in renames.renamed(value)[1] if one.rename == rename), None)


def _edited(text: str, node: yaml.Node | None, found: Found) -> str:
    entry = _entry(node, found.place)
    if found.rename.moves:
        return _moved(text, node, entry, found.rename.new_path)
    return _renamed(text, entry, found.rename.new_path[-1])


def _entry(node: yaml.Node | None, place: tuple[str | int, ...]) -> _Entry:
    """The entry of a key, with those of the sections around it."""
    entry: _Entry | None = None
    for step in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            continue
        below = _below(node, step, entry)
        if below is None:
            raise _ByHand("a YAML alias or merge brings it")
        entry, node = below, below.value
    assert entry is not None, "a key has a path"
    return entry


def _below(node: yaml.Node | None, name: str | int, above: _Entry | None) -> _Entry | None:
    """The entry of a name, where it stands in this place of the text itself."""
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if key.value == name and (above is None or key.start_mark.index > above.key.start_mark.index):
            return _Entry(node, key, value, above)
    return None


def _renamed(text: str, entry: _Entry, new: str) -> str:
    start, end = entry.key.start_mark.index, entry.key.end_mark.index
    return text[:start] + _word(text[start:end], entry.key.value, new) + text[end:]


def _word(found: str, old: str, new: str) -> str:
    """A key under its new name, in the quotes that it had."""
    for quote in ("", "'", '"'):
        if found == f"{quote}{old}{quote}":
            return f"{quote}{new}{quote}"
    raise _ByHand("the key is written in another way")


def _moved(text: str, root: yaml.Node | None, entry: _Entry, path: tuple[str, ...]) -> str:
    """A key in another section: its lines go there, with the comment above them and the one beside them."""
    chunk, (start, end) = _cut(text, entry, path[-1])
    at, added = _place_for(text, root, path, chunk)
    if at == end:
        added = added.removeprefix(_newline(text))  # what is cut has none before it
    emptied, colon = _emptied(text, entry, path)
    edits = [(start, end, ""), (at, at, added), *([(colon, colon, " {}")] if emptied else [])]
    for first, last, more in sorted(edits, reverse=True):
        text = text[:first] + more + text[last:]
    return text


class _Chunk(NamedTuple):
    """An entry as it was cut out.

    Args:
        lines: without their ends; one in flow style is one line.
        column: of its key.
        is_bare: whether it is one line without a comment.
    """

    lines: list[str]
    column: int
    is_bare: bool


def _cut(text: str, entry: _Entry, new: str) -> tuple[_Chunk, tuple[int, int]]:
    """An entry under its new name, and which part of the text it was."""
    key = entry.key.start_mark
    end = _end(entry.value, key.index, text)
    word = _word(text[key.index : entry.key.end_mark.index], entry.key.value, new)
    own = word + text[entry.key.end_mark.index : end]
    if entry.mapping.flow_style:
        if "\n" in own or "#" in own:
            raise _ByHand("it stands in braces over several lines")
        return _Chunk([own], 0, True), _cut_of_flow(text, entry, end)
    first, last = _line_start(text, key.index), _line_end(text, end)
    if text[first : key.index].strip(" "):
        raise _ByHand("its line begins with something else")
    above = _comment_above(text, first, key.column)
    lines = (text[above : key.index] + own + text[end:last]).splitlines()
    is_bare = len(lines) == 1 and not text[end:last].strip()
    return _Chunk(lines, key.column, is_bare), (above, last)


def _cut_of_flow(text: str, entry: _Entry, end: int) -> tuple[int, int]:
    """The part of a text in braces that goes with an entry: its comma too."""
    keys = [key.start_mark.index for key, _ in entry.mapping.value]
    at, start = keys.index(entry.key.start_mark.index), entry.key.start_mark.index
    if at + 1 < len(keys):
        span = start, keys[at + 1]
    elif at:
        span = _end(entry.mapping.value[at - 1][1], 0, text), end
    else:
        span = start, end
    if "#" in text[span[0] : span[1]]:
        raise _ByHand("a comment stands between it and the next key")
    return span


def _place_for(text: str, node: yaml.Node | None, path: tuple[str, ...], chunk: _Chunk) -> tuple[int, str]:
    """Where a cut entry goes, and how it is written there: at the end of its section, which is made if missing."""
    missing = list(path[:-1])
    while missing and isinstance(node, yaml.MappingNode):
        below = next((value for key, value in node.value if key.value == missing[0]), None)
        if below is None:
            break
        node = below
        missing.pop(0)
    if not isinstance(node, yaml.MappingNode):
        raise _ByHand(f"{path[0]} is no section here")
    if node.flow_style:
        return _in_braces(node, missing, chunk, text)
    column = node.value[0][0].start_mark.column
    inner = column + 2 * len(missing)
    heads = [" " * (column + 2 * depth) + f"{name}:" for depth, name in enumerate(missing)]
    lines = [*heads, *(_shifted(line, inner - chunk.column) for line in chunk.lines)]
    at = _line_end(text, _end(node.value[-1][1], node.value[-1][0].start_mark.index, text))
    newline = _newline(text)
    begin = "" if text[:at].endswith("\n") else newline
    return at, begin + "".join(line + newline for line in lines)


def _in_braces(node: yaml.MappingNode, missing: list[str], chunk: _Chunk, text: str) -> tuple[int, str]:
    if missing or not chunk.is_bare:
        raise _ByHand("its new section is written in braces")
    own = chunk.lines[0].strip()
    if not node.value:
        return node.end_mark.index - 1, own
    return _end(node.value[-1][1], node.value[-1][0].start_mark.index, text), f", {own}"


def _emptied(text: str, entry: _Entry, new: tuple[str, ...]) -> tuple[bool, int]:
    """Whether a section loses its last key, and where its braces go: after its name's colon."""
    above = entry.above
    if above is None or entry.mapping.flow_style or len(entry.mapping.value) > 1:
        return False, 0
    one: _Entry | None = above
    path: tuple[str, ...] = ()
    while one is not None:
        path, one = (str(one.key.value), *path), one.above
    if path == new[: len(path)]:
        return False, 0
    return True, text.index(":", above.key.end_mark.index) + 1


def _end(node: yaml.Node, after: int, text: str) -> int:
    """Where a value's own text ends: comments and blank lines below it are not its own."""
    if node.start_mark.index < after:
        raise _ByHand("a YAML alias stands for a value")
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last, after, text)
    end = node.end_mark.index
    return len(text[:end].rstrip()) if getattr(node, "style", None) in ("|", ">") else end


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    """Where the next line begins, if nothing but a comment follows."""
    newline = text.find("\n", at)
    last = len(text) if newline < 0 else newline + 1
    rest = text[at:last].strip()
    if rest and not (rest.startswith("#") and text[at] in " \t"):
        raise _ByHand("something else follows on its line")
    return last


def _comment_above(text: str, first: int, column: int) -> int:
    """Where the comment begins that stands directly above a line, at its column."""
    while first:
        before = _line_start(text, first - 1)
        line = text[before:first]
        if not line.startswith(" " * column + "#"):
            break
        first = before
    return first


def _shifted(line: str, by: int) -> str:
    if not line.strip():
        return line
    return " " * by + line if by > 0 else line[min(-by, len(line) - len(line.lstrip(" "))) :]
