"""Plain text tables for a terminal: columns that line up, numbers to the right."""

from collections.abc import Iterator, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> Iterator[str]:
    """Lines of a table; the first `left` columns are text, the others numbers."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def plain(text: str) -> str:
    """The text as a terminal may show it: nothing in it moves the cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)
