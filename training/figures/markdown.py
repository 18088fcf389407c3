"""Numbers and tables in Markdown."""


def number(x: float) -> str:
    """Two significant digits; zero without a sign."""
    return f"{x + 0.0:.2g}"


def markdown(header: list, rows: list[list]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
