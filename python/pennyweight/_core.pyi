from typing import Any


def version() -> str:
    """The program's version."""

def commands() -> list[dict[str, Any]]:
    """Every command, and what the option visitor tells of its options."""

def run(command: str, options: dict[str, Any], fetched: str, on_event: object | None, on_warning: object) -> str:
    """Runs a command in this process; its report as JSON text."""

def main(words: list[str]) -> int:
    """
    Runs a command line in this process, which is then its own; the exit code.
    """

def hub_names(command: str, options: dict[str, Any]) -> str:
    """The hub ids that a call of run() names, as JSON text."""

def hub_names_of_line(words: list[str]) -> str | None:
    """The hub ids that a command line names, as JSON text, or None."""
