"""What the pages of the documentation hold: their blocks of code, and where their links lead."""

import re

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """Return the page's blocks of code in a language, in order.

    >>> blocks("So:\\n```python\\nx = 1\\n```\\n```bash\\nls\\n```\\n", "bash")
    ['ls\\n']
    """
    return [code for kind, code in BLOCK.findall(page) if kind == language]


def program(page: str) -> str:
    """Return the page's Python blocks as one program, each line of it where it stands on the page.

    >>> program("So:\\n```python\\nx = 1\\n```\\nand\\n```python\\nprint(x)\\n```\\n")
    '\\n\\nx = 1\\n\\n\\n\\nprint(x)\\n'
    """

    parts, end = [], 0
    for block in BLOCK.finditer(page):
        if block[1] == "python":
            parts += ["\n" * page.count("\n", end, block.start(2)), block[2]]
            end = block.end(2)
    return "".join(parts)


def links(page: str) -> list[str]:
    """Return the paths that the page links to, without those in the web and on the page itself."""
    targets = re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", page))
    return [path.partition("#")[0] for path in targets if "://" not in path and path[0] != "#"]


def quoted(page: str) -> list[str]:
    """Return what stands in backticks, outside the blocks of code."""
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", page))
